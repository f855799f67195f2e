"""Streaming feature statistics: n, mean and covariance in float64, one pass, any batch split, any number of
ranks.

N images, D feature width.
"""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from dit.errors import InputError

FORMAT = 1


class Statistics:
    """The count, mean and scatter of feature vectors, updated in float64.

    The pairwise update of means and scatters keeps full precision where plain sums of squares cancel
    (features far from zero), and makes ``update`` a special case of ``merge``.

    Args:
        dim: feature width D.
        metadata: what made the features (extractor name and sha256, images hash, preprocessing); JSON values.
            It is stored beside the numbers and compared before any two statistics meet.

    Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances"
        (1979).
    """

    def __init__(self, dim: int, metadata: Mapping[str, object] | None = None) -> None:
        self.n = 0
        self.mean = np.zeros(dim)
        self.scatter = np.zeros((dim, dim))  # sum of outer products of deviations from the mean
        self.metadata = dict(metadata or {})

    @property
    def dim(self) -> int:
        return self.mean.shape[0]

    @property
    def cov(self) -> np.ndarray:
        """The unbiased covariance (D, D) float64: scatter / (n - 1), as every published FID uses."""
        if self.n < 2:
            raise InputError("statistics.n", self.n, "at least 2 images", "A covariance needs two images.")
        return self.scatter / (self.n - 1)

    def update(self, features: np.ndarray | torch.Tensor) -> "Statistics":
        """Adds features (B, D), any float type, array or tensor; returns itself."""
        block = np.asarray(features.cpu() if isinstance(features, torch.Tensor) else features, np.float64)
        if block.ndim != 2 or block.shape[1] != self.dim:
            raise InputError("features.shape", block.shape, f"(B, {self.dim})")
        if not np.isfinite(block).all():
            raise InputError("features", "(NaN or infinite values)", "finite numbers", "Look at the images.")
        if len(block):
            mean = block.mean(0)
            centred = block - mean
            self._absorb(len(block), mean, centred.T @ centred)
        return self

    def merge(self, other: "Statistics") -> "Statistics":
        """Adds another set's images to this one; returns itself. Both must come from one extractor."""
        if other.dim != self.dim:
            raise InputError(
                "statistics.dim", other.dim, f"{self.dim}, the width of the set it is merged with"
            )
        if other.n:
            self._absorb(other.n, other.mean, other.scatter)
        return self

    def _absorb(self, n: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        total = self.n + n
        delta = mean - self.mean
        self.scatter += scatter
        self.scatter += np.outer(delta, delta * (self.n * n / total))
        self.mean = self.mean + delta * (n / total)
        self.n = total

    def save(self, path: str | Path) -> Path:
        """Writes an .npz with ``mu`` and ``sigma`` (ADM's names), ``n`` and ``metadata`` (JSON)."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        record = json.dumps({"format": FORMAT, **self.metadata}, sort_keys=True)
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            np.savez(file, mu=self.mean, sigma=self.cov, n=np.int64(self.n), metadata=np.str_(record))
        part.replace(path)
        return path

    @classmethod
    def load(cls, path: str | Path, *, n: int | None = None) -> "Statistics":
        """Reads a file of ``save``, or an ADM-style .npz with mu and sigma; never unpickles.

        Args:
            path: the .npz file.
            n: the number of images, for files that do not store it (ADM's do not).
        """
        path = Path(path)
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {
                    name: stored[name] for name in ("mu", "sigma", "n", "metadata") if name in stored.files
                }
        except FileNotFoundError:
            raise InputError("reference", str(path), "an existing .npz file of statistics") from None
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(
                "reference", str(path), "an .npz of plain arrays", f"Reading it failed: {error}"
            ) from None
        return cls._from_arrays(str(path), arrays, n)

    @classmethod
    def _from_arrays(cls, path: str, arrays: dict[str, np.ndarray], n: int | None) -> "Statistics":
        if not {"mu", "sigma"} <= arrays.keys():
            raise InputError("reference", path, "an .npz holding mu (D,) and sigma (D, D)")
        mu, sigma = arrays["mu"], arrays["sigma"]
        shapes_fit = mu.ndim == 1 and sigma.shape == (len(mu), len(mu))
        if not shapes_fit or mu.dtype.kind != "f" or sigma.dtype.kind != "f":
            got = f"(mu {mu.dtype}{mu.shape}, sigma {sigma.dtype}{sigma.shape})"
            raise InputError("reference", got, "floating mu (D,) and sigma (D, D)", f"File: {path}")
        if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
            raise InputError("reference", f"{path}", "finite mu and sigma", "The file holds NaN or infinity.")
        count = int(arrays["n"]) if "n" in arrays else n
        if count is None:
            raise InputError("reference.n", None, "the number of images", f"{path} does not store it.")
        metadata = json.loads(str(arrays["metadata"])) if "metadata" in arrays else {"images": path}
        metadata.pop("format", None)
        stats = cls(len(mu), metadata)
        stats.n, stats.mean = count, mu.astype(np.float64)
        stats.scatter = sigma.astype(np.float64) * (count - 1)
        return stats
