"""What is kept of a measured set of images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dit.evaluation.statistics import Statistics, read_arrays, write_arrays


@dataclass
class Measured:
    """What is kept of a set of images: statistics always, rows where a metric asks for them.

    Args:
        stats: of the features.
        spatial: of the spatial features, where the extractor has them.
        features: (N, D) float32, where kept.
        logits: (N, K) float32, where kept.
        accuracy: share of images which the extractor's classifier gives their label; None without labels or
            classes.
    """

    stats: Statistics
    spatial: Statistics | None = None
    features: np.ndarray | None = None
    logits: np.ndarray | None = None
    accuracy: float | None = None

    def save(self, path: str | Path) -> Path:
        """Writes an .npz with ADM's names (mu, sigma, mu_s, sigma_s) beside ours (n, features, metadata)."""
        arrays = self.stats.arrays()
        if self.spatial is not None:
            arrays |= self.spatial.arrays("_s")
        if self.features is not None:
            arrays["features"] = self.features
        return write_arrays(path, arrays, self.stats.metadata)

    @classmethod
    def load(cls, path: str | Path) -> "Measured":
        """Reads a file of ``save``, or ADM's."""
        arrays, _ = read_arrays(path, ("mu_s", "features"))
        spatial = Statistics.load(path, "_s") if "mu_s" in arrays else None
        return cls(Statistics.load(path), spatial, arrays.get("features"))
