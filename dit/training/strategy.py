"""Device, precision and processes: how Lightning's trainer is set up."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from dit.errors import check_choice, check_number

# Lightning announces devices and tips for every trainer; a study makes many.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
warnings.filterwarnings(
    "ignore", message=".*LeafSpec.*"
)  # Lightning 2.6 on torch 2.15, nothing a user can mend


@dataclass(frozen=True)
class Hardware:
    """What the run computes on; none of it is part of what the run is.

    Args:
        device: ``auto`` | ``cpu`` | ``cuda``.
        precision: ``auto`` (bf16-mixed on a GPU, 32-true on a CPU) or a precision of Lightning's.
        threads: CPU threads of torch; part of the arithmetic, so a resumed run keeps it.
        workers: processes that prepare batches.
    """

    device: str = "auto"
    precision: str = "auto"
    threads: int = 1
    workers: int = 0

    def __post_init__(self) -> None:
        check_choice("hardware.device", self.device, ("auto", "cpu", "cuda"))
        check_choice("hardware.precision", self.precision, ("auto", "32-true", "bf16-mixed", "bf16-true"))
        check_number("hardware.threads", self.threads, low=1, integer=True)
        check_number("hardware.workers", self.workers, low=0, integer=True)

    def torch_device(self) -> torch.device:
        """The device that ``device`` names on this machine."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    def trainer(self, callbacks: Sequence[L.Callback], max_steps: int) -> L.Trainer:
        """A bare trainer: checkpoints, logs and signals are ours."""
        torch.set_num_threads(self.threads)
        on_gpu = self.torch_device().type == "cuda"
        precision: Any = self.precision
        if precision == "auto":
            precision = "bf16-mixed" if on_gpu else "32-true"
        trainer = L.Trainer(
            accelerator="cuda" if on_gpu else "cpu",
            devices=1,
            precision=precision,
            max_steps=max_steps,
            callbacks=list(callbacks),
            # one process, also inside a SLURM job of several tasks, where Lightning would count them as ranks
            plugins=[LightningEnvironment()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        # Lightning 2.6 answers SIGTERM with a collective inside the handler, which hangs when the ranks are at
        # different steps (its issue 21406); dit/signals.py is the only handler.
        trainer._signal_connector.register_signal_handlers = lambda: None
        return trainer
