"""Random streams as pure functions of (seed, purpose, clock).

No generator is carried from step to step, so a resumed run needs no saved random state: the draw of step 1000 is the
same whether steps 0..999 ran in this process or not. Draws are made for the global batch and sliced per rank, so the
noise a sample meets does not depend on the number of ranks.

B: global batch. b: this rank's share of it.
"""

import hashlib
from dataclasses import dataclass

import torch


def key(seed: int, purpose: str, clock: int) -> int:
    """A 63-bit generator seed for one purpose at one clock reading."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{clock}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, purpose: str, clock: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator at the start of the stream of (seed, purpose, clock)."""
    return torch.Generator(device).manual_seed(key(seed, purpose, clock))


@dataclass(frozen=True)
class Streams:
    """The streams of one run, as one rank sees them.

    Args:
        seed: the run's seed.
        batch_size: global batch B.
        rank: this process.
        world_size: how many processes share the batch; divides ``batch_size``.
    """

    seed: int
    batch_size: int
    rank: int = 0
    world_size: int = 1

    @property
    def share(self) -> slice:
        """This rank's part of the global batch."""
        b = self.batch_size // self.world_size
        return slice(self.rank * b, (self.rank + 1) * b)

    def uniform(self, purpose: str, step: int, device: torch.device | str = "cpu") -> torch.Tensor:
        """Uniforms in [0, 1) of the whole batch, shape (B,) float32; slice with ``share``."""
        return torch.rand(
            self.batch_size, generator=generator(self.seed, purpose, step, device), device=device
        )

    def normal(
        self, purpose: str, step: int, shape: tuple[int, ...], device: torch.device | str = "cpu"
    ) -> torch.Tensor:
        """Standard normals of this rank's samples, shape (b, *shape) float32."""
        drawn = torch.randn(
            self.batch_size, *shape, generator=generator(self.seed, purpose, step, device), device=device
        )
        return drawn[self.share]
