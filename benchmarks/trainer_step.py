"""Time of our trainer's step over that of a bare loop doing the same work on the same network: CPU, one thread.

    python -m benchmarks.trainer_step [--steps 60]

Ours is ``dit.training.engine.train`` whole: loader, keyed streams, Lightning's loop, guards, meters, records and
heartbeat. The bare loop is what one writes in a script: images picked from memory, labels dropped, times and noise
from torch's generator, forward, backward, clipping, fused AdamW, one average by a foreach operation. The two take
turns, step by step, so that whatever else the machine does hits both. The result is the median of the ratios of
neighbouring steps: of wall time, and of this process's CPU time, which other processes stretch less. Data are the
digits that scikit-learn brings, in pixel space.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import torch
from torch import Tensor, nn

from dit.condition import labelled
from dit.config import job as job_config
from dit.config.instantiation import config_dir
from dit.config.parts import Parts
from dit.launch import World
from dit.rundir import RunDirectory
from dit.training import engine
from dit.training.job import Job

SIZES = {  # name: (image side, batch, network)
    "ladder 64, 16 tokens": (8, 128, ["network.width=64", "network.aspect=16", "network.head_dim=16"]),
    "ladder 128, 16 tokens": (8, 128, ["network.width=128", "network.aspect=16", "network.head_dim=16"]),
    "DiT-S/2, 256 tokens": (32, 4, ["network=dit_s_2"]),
}


class BareLoop:
    """The same step as plainly as it can be written, on a network of its own."""

    def __init__(self, job: Job) -> None:
        latents = job.latents
        self.batch, self.kind = job.settings.batch_size, latents.kind
        self.data, self.labels = latents.draw(torch.arange(len(latents))), latents.labels
        self.network = job.network.build(latents.domain, latents.kind)
        self.parameters = list(self.network.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, betas=(0.9, 0.99), fused=True)
        self.average = [parameter.detach().clone() for parameter in self.parameters]

    def step(self) -> Tensor:
        """One optimizer step of rectified flow."""
        index = torch.randint(len(self.data), (self.batch,))
        x0, y = self.data[index], self.labels[index]
        y = torch.where(torch.rand(self.batch) < 0.1, self.kind.n, y)
        t, eps = torch.rand(self.batch), torch.randn_like(x0)
        x_t = torch.lerp(x0, eps, t[:, None, None, None])
        loss = (self.network(x_t, 1000 * t, labelled(y)) - (eps - x0)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1e-3)
        return loss


class Turns(L.Callback):
    """After each step of the trainer, one of the bare loop; ours is all the time between two of those.

    Attributes:
        ours, theirs: (wall, CPU) seconds of each step.
    """

    def __init__(self, bare: BareLoop) -> None:
        self.bare = bare
        self.ours: list[tuple[float, float]] = []
        self.theirs: list[tuple[float, float]] = []
        self._mark: tuple[float, float] | None = None

    def on_train_batch_end(self, *_: Any) -> None:
        start = (time.perf_counter(), time.process_time())
        self.bare.step()
        end = (time.perf_counter(), time.process_time())
        if self._mark is not None:
            self.ours.append((start[0] - self._mark[0], start[1] - self._mark[1]))
            self.theirs.append((end[0] - start[0], end[1] - start[1]))
        self._mark = end


def compare(name: str, folder: Path, steps: int, warm_up: int) -> dict[str, Any]:
    """Median milliseconds of both, and the ratio ours / bare with its quartiles."""
    side, batch, network = SIZES[name]
    data = folder / f"digits-{side}"
    overrides = [
        "autoencoder=identity",
        f"data.image_size={side}",
        f"data.directory={data}",
        *network,
        f"batch_size={batch}",
        "duration.images=null",
        f"duration.steps={warm_up + steps}",
        "validation.n_draws=8",
        "averages=constant",
    ]
    with hydra.initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = hydra.compose("train", overrides)
    if not data.is_dir():
        command = [sys.executable, "-m", "dit", "encode", *overrides[:3]]
        subprocess.run(command, check=True, capture_output=True)
    path = folder / name.split(",")[0].replace("/", "-")
    path.mkdir()
    job = job_config.training_job(Parts(cfg), "benchmark", path, World())
    turns = Turns(BareLoop(job))
    make = engine.make_trainer

    def with_turns(hardware: Any, strategy: str, world: World, callbacks: Any, *more: Any) -> L.Trainer:
        return make(hardware, strategy, world, [*callbacks, turns], *more)

    engine.make_trainer = with_turns
    run_directory = RunDirectory(path, "benchmark", "")
    try:
        engine.train(job, path, run_directory)
    finally:
        run_directory.close()
        engine.make_trainer = make
    row: dict[str, Any] = {"network": name, "batch": batch, "steps": steps}
    for which, kind in enumerate(("wall", "cpu")):
        ours, theirs = (
            [seconds[which] for seconds in side[warm_up:-1]]  # the last step validates and saves
            for side in (turns.ours, turns.theirs)
        )
        low, ratio, high = statistics.quantiles([a / b for a, b in zip(ours, theirs, strict=True)], n=4)
        row[kind] = {
            "ours_ms": round(1e3 * statistics.median(ours), 3),
            "bare_ms": round(1e3 * statistics.median(theirs), 3),
            "ratio": round(ratio, 4),
            "ratio_quartiles": [round(low, 4), round(high, 4)],
        }
    return row


def main() -> None:
    """Prints one line of json per size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name in args.sizes:
            print(json.dumps(compare(name, Path(folder), args.steps, args.warm_up)), flush=True)


if __name__ == "__main__":
    main()
