"""Paths from data to noise: x_t = alpha(t) x0 + sigma(t) eps, with t rising from data to noise.

Every path names the interval [t_min, t_max] inside which log_snr is finite and every target can be solved for
(x0, eps). alpha and sigma themselves are defined up to the singular ends, so that a solver whose target
allows it may go there.

Shapes: t and everything returned here is (B,), or any shape at all: all functions are elementwise. Half
precision is raised to float32; float64 stays float64.
"""

from dit.diffusion.paths.base import Path, at_least_float32, per_sample
from dit.diffusion.paths.continuous import VE, VP, Cosine, Linear
from dit.diffusion.paths.discrete import Discrete, Posterior

__all__ = ["VE", "VP", "Cosine", "Discrete", "Linear", "Path", "Posterior", "at_least_float32", "per_sample"]
