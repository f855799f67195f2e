"""Streaming feature statistics: n, mean and covariance in float64, one pass, any batches, any ranks.

B images of a batch, N images in all, D feature width.
"""

import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from dit.data.sources.base import check_regular
from dit.errors import InputError
from dit.files import whole

FORMAT = 1
UNREADABLE = (  # what numpy and zipfile raise for damaged files; RuntimeError: encrypted
    OSError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    MemoryError,
    RuntimeError,
    AttributeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
BLOCK = 1024  # rows between updates: one pass over the scatter matrix per block, whatever the batches


class Statistics:
    """The count, mean and scatter of feature vectors, updated in float64.

    Rows are gathered into blocks of fixed size first, so the result is the same to the last bit however the
    rows were batched. The pairwise update keeps full precision where plain sums of squares cancel (features
    far from zero).

    Args:
        dim: feature width D.
        metadata: what made the features (extractor name and sha256, images hash, preprocessing); JSON values.
            It is stored beside the numbers and compared before any two statistics meet.

    Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances"
        (1979).
    """

    def __init__(self, dim: int, metadata: Mapping[str, object] | None = None) -> None:
        self.metadata = dict(metadata or {})
        self._n: int | None = 0
        self._mean = np.zeros(dim)
        self._scatter = np.zeros((dim, dim))  # sum of outer products of deviations from the mean
        self._block: np.ndarray | None = None  # allocated with the first row: a loaded file needs none
        self._filled = 0

    @classmethod
    def of_moments(
        cls,
        n: int | None,
        mean: np.ndarray,
        cov: np.ndarray,
        metadata: Mapping[str, object] | None = None,
    ) -> "Statistics":
        """Statistics of a known mean (D,) and covariance (D, D); n is None where nobody recorded it."""
        stats = cls(len(mean), metadata)
        stats._n, stats._mean = n, mean.astype(np.float64)
        stats._scatter = cov.astype(np.float64) * (1 if n is None else n - 1)
        return stats

    @property
    def dim(self) -> int:
        return self._mean.shape[0]

    @property
    def n(self) -> int | None:
        """The number of images; None for a file which does not store it (ADM's do not)."""
        return None if self._n is None else self._n + self._filled

    @property
    def mean(self) -> np.ndarray:
        """The mean (D,) float64."""
        self._flush()
        return self._mean

    @property
    def scatter(self) -> np.ndarray:
        """The sum of outer products of deviations from the mean, (D, D) float64."""
        self._flush()
        return self._scatter

    @property
    def cov(self) -> np.ndarray:
        """The unbiased covariance (D, D) float64: scatter / (n - 1), as every published FID uses."""
        if self.n is None:
            return self._scatter
        if self.n < 2:
            raise InputError("statistics.n", self.n, "at least 2 images", "A covariance needs two images.")
        return self.scatter / (self.n - 1)

    def update(self, features: np.ndarray | torch.Tensor) -> "Statistics":
        """Adds features (B, D), any float type; returns itself."""
        rows = features.detach().cpu().numpy() if isinstance(features, torch.Tensor) else np.asarray(features)
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise InputError("features.shape", rows.shape, f"(B, {self.dim})")
        if not np.isfinite(rows).all():
            raise InputError("features", "(NaN or infinite values)", "finite numbers", "Look at the images.")
        self._require_count()
        if self._block is None:
            self._block = np.empty((BLOCK, self.dim))
        while len(rows):
            taken = min(BLOCK - self._filled, len(rows))
            self._block[self._filled : self._filled + taken] = rows[:taken]
            self._filled += taken
            rows = rows[taken:]
            if self._filled == BLOCK:
                self._flush()
        return self

    def merge(self, other: "Statistics") -> "Statistics":
        """Adds another set's images to this one; returns itself. Both must come from one extractor."""
        if other.dim != self.dim:
            raise InputError(
                "statistics.dim", other.dim, f"{self.dim}, the width of the set it is merged with"
            )
        self._require_count()
        other._require_count()
        self._flush()
        if other.n:
            self._absorb(other.n, other.mean, other.scatter)
        return self

    def _require_count(self) -> None:
        if self._n is None:
            raise InputError(
                "statistics.n", None, "a known number of images", "Statistics without it cannot be added to."
            )

    def _flush(self) -> None:
        if self._filled:
            assert self._block is not None, "rows were counted without a block"
            rows, self._filled = self._block[: self._filled], 0
            mean = rows.mean(0)
            centred = rows - mean
            self._absorb(len(rows), mean, centred.T @ centred)

    def _absorb(self, n: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        assert self._n is not None, "statistics of unknown count cannot grow"
        total = self._n + n
        delta = mean - self._mean
        self._scatter += scatter
        self._scatter += np.outer(delta, delta * (self._n * n / total))
        self._mean = self._mean + delta * (n / total)
        self._n = total

    def copy(self) -> "Statistics":
        """Statistics of the same images, which updates of this one do not reach."""
        return Statistics(self.dim, self.metadata).merge(self)

    def save(self, path: str | Path) -> Path:
        """Writes an .npz: ``mu``, ``sigma`` (ADM's names), ``n`` and ``metadata`` (JSON)."""
        return write_arrays(path, self.arrays(), self.metadata)

    def arrays(self, suffix: str = "") -> dict[str, np.ndarray]:
        """``mu`` and ``sigma``, with ADM's suffix (``_s`` for spatial features), and ``n`` where known."""
        count = {} if self.n is None else {"n": np.asarray(self.n)}
        return {f"mu{suffix}": self.mean, f"sigma{suffix}": self.cov, **count}

    @classmethod
    def load(cls, path: str | Path, suffix: str = "") -> "Statistics":
        """Reads a file of ``save``, or an ADM-style .npz with mu and sigma; never unpickles.

        Args:
            path: the .npz file.
            suffix: ``_s`` for the spatial statistics of an ADM file.

        Raises:
            InputError: no such file, no such arrays, or not of floating numbers in matching shapes, or
                sigma is no covariance.
        """
        mu_name, sigma_name = f"mu{suffix}", f"sigma{suffix}"
        arrays, metadata = read_arrays(path, (mu_name, sigma_name, "n"))
        if not {mu_name, sigma_name} <= arrays.keys():
            raise InputError(
                "reference", str(path), f"an .npz holding {mu_name} (D,) and {sigma_name} (D, D)"
            )
        mu, sigma = arrays[mu_name], arrays[sigma_name]
        shapes_fit = mu.ndim == 1 and sigma.shape == (len(mu), len(mu))
        if not shapes_fit or mu.dtype.kind != "f" or sigma.dtype.kind != "f":
            got = f"(mu {mu.dtype}{mu.shape}, sigma {sigma.dtype}{sigma.shape})"
            raise InputError("reference", got, "floating mu (D,) and sigma (D, D)", f"File: {path}")
        if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
            raise InputError("reference", str(path), "finite mu and sigma", "The file holds NaN or infinity.")
        uneven = np.abs(sigma - sigma.T).max(initial=0) > 1e-4 * np.abs(sigma).max(
            initial=0
        )  # room for float32
        if uneven or (sigma.diagonal() < 0).any():
            fault = "is not symmetric" if uneven else "has negative variances"
            raise InputError("reference", str(path), "a covariance", f"Its {sigma_name} {fault}.")
        return cls.of_moments(int(arrays["n"]) if "n" in arrays else None, mu, sigma, metadata)


def _parsed(path: Path, text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError("reference", str(path), "metadata in JSON", str(error)) from None
    if not isinstance(found, dict):
        raise InputError("reference", str(path), "metadata that are an object of JSON")
    return found


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, object]) -> Path:
    """Writes arrays and metadata (as JSON text) to an .npz, whole or not at all."""
    path = Path(path)
    record = json.dumps({"format": FORMAT, "arrays": sorted(arrays), **metadata}, sort_keys=True)
    with whole(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, metadata=np.str_(record), **arrays)
    return path


def read_arrays(path: str | Path, names: tuple[str, ...]) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Those of the named arrays which an .npz holds, and its metadata; never unpickles."""
    path = Path(path)
    if path.exists():
        check_regular(path, "reference")
    try:
        with np.load(path, allow_pickle=False) as stored:
            for member in stored.zip.infolist():  # a damaged name would only seem to be absent
                stored.zip.open(member).close()
            held = set(stored.files)
            arrays = {name: stored[name] for name in (*names, "metadata") if name in held}
    except FileNotFoundError:
        raise InputError("reference", str(path), "an existing .npz file of statistics") from None
    except UNREADABLE as error:
        raise InputError(
            "reference", str(path), "an .npz of plain arrays", f"Reading it failed: {error}"
        ) from None
    metadata: dict[str, object] = {"images": path.name}
    if "metadata" in arrays:
        metadata = _parsed(path, str(arrays.pop("metadata")))
        stored_format = metadata.pop("format", None)
        if stored_format != FORMAT:
            raise InputError(str(path), stored_format, f"format {FORMAT}", "Measure the images again.")
        written = metadata.pop("arrays", None)  # older files do not say
        if written is not None and (not isinstance(written, list) or held != {"metadata", *written}):
            raise InputError("reference", str(path), "the arrays that were written", "It is damaged.")
    return arrays, metadata
