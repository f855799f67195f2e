"""Flips and truncations of every kind of file: each is found, said or harmless; none is silent, none a traceback.

    python -m tests.damage FOLDER N SEED      makes the files in an empty folder, damages N times, prints a table

``examples`` is what it tries; tests/test_damage.py tries a few of them.
"""

import logging
import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from dit.config.run import load_run
from dit.data.codec import Codec
from dit.data.draws import validation_draws
from dit.data.latents import LatentSet
from dit.errors import InputError, RunError
from dit.evaluation.gathering import gather
from dit.evaluation.journal import Journal
from dit.evaluation.measured import Measured
from dit.records import check_prefix
from dit.rundir import is_done, read_environment
from dit.study.ledger import Ledger
from dit.study.records import load_study
from dit.study.watch import as_dict
from dit.training.saving import CheckpointManager
from dit.verbs.export import load_exported
from dit.verbs.train import _has_rows
from tests.conftest import TINY, dit


@dataclass(frozen=True)
class Example:
    """A kind of file: what is damaged, and what reads it, giving all that a user could see of it."""

    kind: str
    files: list[Path]
    read: Callable[[], Any]


def make(folder: Path) -> None:
    """Latents, a study of two runs, evaluations, statistics and an export: as a user makes them."""
    latents = "data.directory=latents"
    settings = [*TINY, latents, "warmup_images=16"]
    dit("encode", "autoencoder=identity", "data.image_size=8", latents, cwd=folder, check=0)
    sizes = ["study.widths=[16,32]", "study.min_images=320", "study.max_images=4000", "study.directory=study"]
    sizes.append("study.force=true")
    budgets = "study.budgets_flops=[4e8,1e9]"
    dit("study", "experiment=digits", *settings, "evaluation=none", budgets, *sizes, cwd=folder, check=0)
    run = "run=study/runs/w0016"
    np.savez(
        folder / "images.npz", np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3)).astype(np.uint8)
    )
    dit("evaluate", "images=images.npz", "statistics=reference.npz", cwd=folder, check=0)
    out = "out=study/runs/w0016"
    dit("evaluate", "images=images.npz", "n=16", "reference=reference.npz", out, cwd=folder, check=0)
    dit("export", run, "out=export.safetensors", cwd=folder, check=0)


def examples(folder: Path) -> list[Example]:
    """Every kind of file in a folder of ``make``."""
    study, latents = folder / "study", folder / "latents"
    run = study / "runs/w0016"
    shards = [
        *sorted(latents.rglob("train-*.safetensors")),
        *sorted(latents.rglob("validation-*.safetensors")),
    ]
    checkpoints = sorted((run / "checkpoints").iterdir())

    def same_run() -> Any:
        loaded = load_run(run, "ema", None, torch.device("cpu"))
        cfg = OmegaConf.to_container(loaded.cfg)
        return cfg, _tensors(loaded.denoiser.network.state_dict()), loaded.images_seen

    def resumed() -> Any:
        known = read_environment(run)
        checkpoint = CheckpointManager(run / "checkpoints").latest()
        whole = is_done(run, known["config_hash"]) and _has_rows(run, [])
        stored = {key: checkpoint.manifest[f"records_{key}"] for key in ("bytes", "sha256")}
        return whole, checkpoint.images_seen, check_prefix(run / "records.jsonl", stored)

    def whole_study() -> Any:
        found = load_study(study)
        return found.rows, found.evaluations, found.torn, as_dict(Ledger(study).entries())

    def whole_latents() -> Any:
        parts = [LatentSet(latents, split) for split in ("train", "validation")]
        draws = validation_draws(parts[1], 64, 8, 0)
        codec = Codec.open(latents)
        rows = [part.draw(torch.arange(len(part))) for part in parts]
        return [
            *_tensors({str(i): row for i, row in enumerate(rows)}),
            *map(_key, vars(draws).values()),
            _key(codec.channel_mean),
        ]

    def exported() -> Any:
        denoiser = load_exported(folder / "export.safetensors")
        return _tensors(denoiser.network.state_dict()), repr(denoiser.path), repr(denoiser.target)

    def statistics() -> Any:
        found = Measured.load(folder / "reference.npz")
        return [_key(value) for value in vars(found.stats).values()], _key(found.features)

    def evaluations() -> Any:
        return Journal(run)._answers, [(row.model, row.metrics, row.picture) for row in gather(run).rows]

    return [
        Example("config.yaml", [run / "config.yaml"], same_run),
        Example("environment.json", [run / "environment.json"], resumed),
        Example("status.json", [run / "status.json"], lambda: (resumed(), whole_study())),
        Example("records.jsonl", [run / "records.jsonl"], lambda: (resumed(), whole_study())),
        Example("checkpoint manifest", [checkpoints[-1] / "manifest.json"], same_run),
        Example("checkpoint tensors", list(checkpoints[-1].glob("*.safetensors")), same_run),
        Example("plan.json", [study / "plan.json"], whole_study),
        Example("evaluations.jsonl", [run / "evaluations.jsonl"], evaluations),
        Example("latents manifest", [latents / "manifest.json", latents / "manifest.sha256"], whole_latents),
        Example("latents shards", shards, whole_latents),
        Example("validation draws", sorted(latents.glob("**/*draws*")), whole_latents),
        Example("reference", [folder / "reference.npz"], statistics),
        Example("export", [folder / "export.safetensors"], exported),
    ]  # fmt: skip


def _tensors(tensors: dict[str, torch.Tensor]) -> list[Any]:
    return [
        (name, tuple(tensor.shape), float(tensor.double().sum()), _key(tensor))
        for name, tensor in tensors.items()
    ]


def _key(value: Any) -> Any:
    """A value that can be compared."""
    if isinstance(value, torch.Tensor):
        return value.contiguous().view(torch.uint8).numpy().tobytes()
    return value.tobytes() if hasattr(value, "tobytes") else repr(value)


class Said(logging.Handler):
    """Counts the warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def damage(data: bytes, draw: random.Random) -> tuple[str, bytes]:
    """One flipped bit, or the file cut short."""
    if draw.random() < 0.25:
        return "cut", data[: draw.randrange(len(data))]
    place, bit = draw.randrange(len(data)), draw.randrange(8)
    return f"bit {bit} of byte {place}", data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def verdict(read: Callable[[], Any], good: Any, said: Said) -> str:
    """``refused`` and ``said`` by a message, ``harmless``, or what must not be: ``SILENT`` and ``TRACEBACK``."""
    said.lines.clear()
    try:
        found = read()
    except (InputError, RunError):
        return "refused"
    except Exception as error:
        return f"TRACEBACK {type(error).__name__}: {error}"
    if found == good:
        return "harmless"
    return (
        "said" if said.lines or "unreadable" in repr(found) or "/records.jsonl" in repr(found) else "SILENT"
    )


def run(folder: Path, n: int, seed: int) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Damages files one at a time and puts each back; how often each verdict, and what must not be."""
    draw, counts, bad = random.Random(seed), Counter(), []
    said = Said()
    logging.getLogger("dit").addHandler(said)
    tried = [example for example in examples(folder) if example.files]
    good = {example.kind: example.read() for example in tried}
    for number in range(n):
        example = tried[number % len(tried)]
        file = draw.choice(example.files)
        data = file.read_bytes()
        what, damaged = damage(data, draw)
        file.write_bytes(damaged)
        found = verdict(example.read, good[example.kind], said)
        file.write_bytes(data)
        counts[example.kind, found.split()[0]] += 1
        if found.split()[0] in ("SILENT", "TRACEBACK"):
            bad.append(f"{example.kind}, {file.name}, {what}: {found}")
    logging.getLogger("dit").removeHandler(said)
    return counts, bad


if __name__ == "__main__":
    place = Path(sys.argv[1])
    if not (place / "export.safetensors").exists():
        make(place)
    os.chdir(place)  # its runs name their latents from there
    table, wrong = run(Path(), int(sys.argv[2]), int(sys.argv[3]))
    print(
        *(f"{kind:20} {found:10} {count}" for (kind, found), count in sorted(table.items())), *wrong, sep="\n"
    )
    sys.exit(bool(wrong))
