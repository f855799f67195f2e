"""A study directory made from a surface that is known: records as a real study writes them, no network
trained.

Each size is one run at constant learning rate, read at every budget. Losses follow L = E + A N^-alpha + B
D^-beta (N multiply-adds per token, D images) times (1 + noise), so what a fit must find is known.
"""

import hashlib
import json
import math
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dit.records import encode

EDGES = [-9.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 9.0]  # eight bins of log-SNR


@dataclass(frozen=True)
class Surface:
    """L(N, D) and the study measured on it; ``noise`` is the relative standard deviation of one run's
    loss."""

    e: float = 0.30
    a: float = 12.0
    alpha: float = 0.35
    b: float = 20.0
    beta: float = 0.42
    noise: float = 0.001
    tokens: int = 16
    batch: int = 16
    widths: tuple[int, ...] = (32, 48, 64, 96, 128, 192, 256)
    budgets: tuple[float, ...] = (1e12, 3.162e12, 1e13, 3.162e13)
    seeds: tuple[int, ...] = (0,)
    n_train: int = 10**10  # no image is seen twice

    def loss(self, n: Any, d: Any) -> Any:
        """The noiseless loss of N multiply-adds per token and D images."""
        return self.e + self.a * n**-self.alpha + self.b * d**-self.beta

    def macs_per_token(self, width: int) -> int:
        """N: 12 d^2 per block and token at one block per 32 of width, plus attention over the tokens."""
        depth = max(2, width // 32)
        return depth * (12 * width**2 + 2 * self.tokens * width)

    def n_opt(self, budget: float) -> float:
        """N*(C) in closed form: dL/dN = 0 along 6 tokens N D = C.

        Source: Hoffmann et al., arXiv 2203.15556, equation 4.
        """
        scale = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        return scale * (budget / (6 * self.tokens)) ** (self.beta / (self.alpha + self.beta))


def write_study(
    directory: Path, surface: Surface | None = None, *, samples: bool = True, **changes: Any
) -> Path:
    """Writes the records of a study on ``surface`` and returns its directory.

    Args:
        directory: where it goes.
        surface: the truth; ``changes`` are replaced in it.
        samples: whether samples rows and their grids are written.
        **changes: fields of Surface.
    """
    surface = replace(surface or Surface(), **changes)
    rng = np.random.default_rng(7)
    directory.mkdir(parents=True, exist_ok=True)
    plan = {"schema": 1, "study": "synthetic", "budgets_flops": list(surface.budgets)}
    (directory / "plan.json").write_text(json.dumps(plan))
    for seed in surface.seeds:
        for width in surface.widths:
            _write_run(directory, surface, width, seed, rng, samples)
    return directory


def _write_run(directory: Path, s: Surface, width: int, seed: int, rng: Any, samples: bool) -> None:
    run = f"w{width:04d}-s{seed}"
    folder = directory / "runs" / run
    folder.mkdir(parents=True)
    rows = [run_row(s, width, seed, run)]
    n, per_image = rows[0]["macs_per_token"], rows[0]["train_flops_per_image"]
    wobble = 1 + s.noise * rng.standard_normal()  # shared by the checkpoints of a run
    for budget in s.budgets:
        images = max(1, round(budget / per_image / s.batch)) * s.batch
        at = {"run": run, "images_seen": images, "train_flops": per_image * images, "budget_flops": budget}
        loss = s.loss(n, images) * wobble * (1 + 0.2 * s.noise * rng.standard_normal())
        train = {"kind": "train", "run": run, "grad_norm": 0.5, "lr": rows[0]["lr"]}
        for part in (0.25, 0.5, 1.0):
            seen = round(images * part)
            noisy = s.loss(n, seen) * rng.normal(1, 0.02)
            rows.append({**train, "images_seen": seen, "train_flops": per_image * seen, "loss": noisy})
        draws = {"kind": "validation", "log_snr_edges": EDGES, "n_draws": 2000, "draws_hash": "d" * 16}
        for weights, value in (("raw", 1.02 * loss), ("ema", loss)):
            rows.append({**at, **draws, "weights": weights, "loss": value, "loss_bins": _bins(value)})
        for row in _samples(loss, s) if samples else []:
            grid = f"samples/{images}-{row['protocol']['guidance'][:4]}.png"
            rows.append({**at, **row, "grid": grid})
            _write_png(folder / grid, loss)
    # Not through RecordWriter: its fsyncs would be most of the time of these tests.
    (folder / "records.jsonl").write_bytes(b"".join(map(encode, rows)))
    (folder / "status.json").write_text(json.dumps({"state": "done"}))


def run_row(s: Surface, width: int, seed: int, run: str) -> dict[str, Any]:
    """The first row of a run."""
    per_token = s.macs_per_token(width)
    depth = max(2, width // 32)
    blocks = depth * (12 * width**2 + 6 * width**2)
    return {
        "kind": "run", "run": run, "study": "synthetic",
        "config_hash": hashlib.sha256(run.encode()).hexdigest()[:16], "git_commit": "0" * 40,
        "objective": "rectified_flow",
        "network": {"width": width, "depth": depth, "heads": width // 32, "patch_size": 2},
        "n_params_total": blocks + 400 * width, "n_params_by_group": {"blocks": blocks, "rest": 400 * width},
        "tokens_per_image": s.tokens, "macs_per_image": per_token * s.tokens, "macs_per_token": per_token,
        "train_flops_per_image": 6 * per_token * s.tokens, "batch_size": s.batch, "lr": 1e-3 * math.sqrt(64 /
        width), "lr_rule": "inverse_sqrt_width(base=64, lr=1e-3)", "seed": seed, "warmup_images": 0,
        "ema": "power(0.10)", "data": {"name": "digits", "manifest_hash": "m" * 16, "n_train": s.n_train,
                                       "n_held_out": 297},
        "budgets_flops": list(s.budgets),
    }  # fmt: skip


def _bins(loss: float) -> list[float]:
    """Eight losses of which the noisy end falls fastest; their mean is not the total, as with any
    weighting."""
    return [loss ** (1.2 - 0.1 * k) * (0.4 + 0.3 * k) for k in range(8)]


def _samples(loss: float, s: Surface) -> list[dict[str, Any]]:
    excess = loss - s.e
    rows = []
    for guidance, accuracy in (("none", 1 - 0.6 * excess), ("classifier_free(scale=1.5)", 1 - 0.2 * excess)):
        protocol = {
            "reference": "r" * 16,
            "reference_n": 297,
            "extractor": "digits",
            "extractor_sha256": "e" * 16,
            "n": 1000,
            "seed": 0,
            "labels": "balanced",
            "solver": "euler",
            "grid": "uniform",
            "nfe": 25 if guidance == "none" else 50,
            "guidance": guidance,
            "weights": "ema",
        }
        rows.append(
            {
                "kind": "samples",
                "weights": "ema",
                "frechet_distance": 90 * excess**1.5,
                "accuracy": min(1.0, max(0.1, accuracy)),
                "n": 1000,
                "protocol": protocol,
                "protocol_hash": hashlib.sha256(json.dumps(protocol).encode()).hexdigest()[:16],
            }
        )
    return rows


def _write_png(file: Path, loss: float) -> None:
    """A grid of 2 x 8 tiles of 16 pixels: stripes under noise that falls with the loss (a PNG without a
    library)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :128]
    tile = (x // 16 + y // 16 * 8).astype(float)
    clean = np.sin((x % 16) * (0.3 + 0.1 * tile)) * np.cos((y % 16) * 0.5)
    pixels = np.clip(
        127.5 + 90 * clean + 250 * max(0.0, loss - 0.3) * rng.standard_normal(clean.shape), 0, 255
    )
    raw = b"".join(b"\0" + line.tobytes() for line in pixels.astype(np.uint8))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 128, 32, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw)),
        (b"IEND", b""),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    body = b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
