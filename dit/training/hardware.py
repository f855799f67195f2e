"""The device that a process computes on, and in which precision; known to every verb, so without Lightning."""

from dataclasses import dataclass

import torch

from dit.errors import InputError, check_choice, check_number
from dit.launch import World


@dataclass(frozen=True)
class Hardware:
    """What the run computes on; none of it is part of what the run is.

    Args:
        device: ``auto`` | ``cpu`` | ``cuda``.
        precision: ``auto`` (bf16-mixed on a GPU, 32-true on a CPU), or one of the two. bf16-mixed: matrix products and
            residual stream in bfloat16 (by autocast in a single process, by FSDP2's policy where that shards), all that
            is kept from step to step in float32.
        threads: CPU threads of torch; part of the arithmetic, so a resumed run keeps it.
        workers: processes that prepare batches, per rank; None is 4 where a GPU would wait for them, else 0.
        processes: ranks that ``dit train`` starts on this machine by itself; 1 leaves that to torchrun or srun.
    """

    device: str = "auto"
    precision: str = "auto"
    threads: int = 1
    workers: int | None = None
    processes: int = 1

    def __post_init__(self) -> None:
        check_choice("hardware.device", self.device, ("auto", "cpu", "cuda"))
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError("hardware.device", "cuda", "auto or cpu, where torch finds no CUDA device")
        check_choice("hardware.precision", self.precision, ("auto", "32-true", "bf16-mixed"))
        check_number("hardware.threads", self.threads, low=1, integer=True)
        if self.workers is not None:
            check_number("hardware.workers", self.workers, low=0, integer=True)
        check_number("hardware.processes", self.processes, low=1, integer=True)

    def torch_device(self, world: World = World()) -> torch.device:  # noqa: B008 - frozen
        """The device of one rank on this machine."""
        cuda = torch.cuda.is_available() if self.device == "auto" else self.device == "cuda"
        return torch.device("cuda", world.local_rank) if cuda else torch.device("cpu")

    @property
    def n_workers(self) -> int:
        """Processes that prepare batches, per rank."""
        if self.workers is not None:
            return self.workers
        return 4 if self.torch_device().type == "cuda" else 0

    @property
    def is_bf16(self) -> bool:
        """Whether matrix products are taken in bfloat16."""
        return self.precision == "bf16-mixed" or (
            self.precision == "auto" and self.torch_device().type == "cuda"
        )
