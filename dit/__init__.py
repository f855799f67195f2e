"""dit: scaling studies of diffusion transformers."""

__version__ = "0.1.0"
