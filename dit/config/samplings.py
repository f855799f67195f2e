"""Ways to draw the samples that are measured, as an evaluation's protocols and a sweep over them say."""

import dataclasses
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dit.config.given import shadowed
from dit.config.instantiation import config_dir, instantiate
from dit.config.protocols import PROTOCOL
from dit.diffusion.guidance import Autoguidance, Classifier, unguided
from dit.errors import InputError, check_choice, check_number
from dit.evaluation.protocol import describe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """One way to draw samples.

    Attributes:
        name: of the protocol, for tables and pictures.
        n, seed, labels: how many, from which sampling seed, ``balanced`` or ``random``.
        guidance_scale: 1 is off (0 for a classifier).
        preview: how many of the first are drawn as a picture.
        solver, grid, guidance: partials of ``dit.diffusion``.
        subsets: fewer of the same samples, measured too.
        weak, weak_name: the weaker denoiser of autoguidance, and what protocols call it.
    """

    name: str
    n: int
    seed: int
    labels: str
    guidance_scale: float
    preview: int
    solver: Any
    grid: Any
    guidance: Any
    subsets: tuple[int, ...] = ()
    weak: Any = None
    weak_name: str = ""

    def __post_init__(self) -> None:
        for key, low in (("n", 2), ("seed", 0), ("preview", 0)):
            check_number(f"evaluation.protocols.{self.name}.{key}", getattr(self, key), low=low, integer=True)
        check_number(f"evaluation.protocols.{self.name}.guidance_scale", self.guidance_scale, low=0)
        check_choice(f"evaluation.protocols.{self.name}.labels", self.labels, ("balanced", "random"))
        if self.is_guided and self.guidance.func is Classifier:
            raise InputError(
                "evaluation.guidance", "classifier", "guidance without a classifier of noisy latents"
            )
        if self.is_guided and self.guidance.func is Autoguidance and self.weak is None:
            raise InputError("weak_run", None, "the directory of a weaker run", "Or choose other guidance.")
        if list(self.subsets) != sorted({*self.subsets} - {self.n}) or max(self.subsets, default=0) > self.n:
            raise InputError("subsets", list(self.subsets), f"increasing numbers below n = {self.n}")

    @classmethod
    def read(
        cls, evaluation: DictConfig, names: Iterable[str] | None = None, **more: Any
    ) -> "dict[str, Sampling]":
        """The protocols of an evaluation by name, some or all of them: they share solver, grid and guidance."""
        parts = {key: instantiate(evaluation[key]) for key in ("solver", "grid")}
        with shadowed(evaluation.guidance, ["scale"]):  # each protocol has its own
            parts["guidance"] = instantiate(evaluation.guidance)
        nodes = {str(name): evaluation.protocols[name] for name in names or evaluation.protocols}
        own = {name: {key: node[key] for key in PROTOCOL} for name, node in nodes.items()}
        return {name: cls(name=name, **one, **parts, **more) for name, one in own.items()}

    def varied(
        self,
        *,
        guidance_scale: float | None = None,
        n_steps: int | None = None,
        solver: str | None = None,
        seed: int | None = None,
    ) -> "Sampling":
        """This with other values; None keeps one. A solver by its name in ``conf/solver``, as it is there."""
        changed: dict[str, Any] = {"guidance_scale": guidance_scale, "seed": seed}
        if isinstance(guidance_scale, int):
            changed["guidance_scale"] = float(guidance_scale)  # 2 and 2.0 are one protocol
        if n_steps is not None:
            check_number("sweep.n_steps", n_steps, low=1, integer=True)
            changed["grid"] = _changed(self.grid, n_steps=n_steps)
        if solver is not None:
            folder = Path(config_dir()) / "solver"
            check_choice("sweep.solver", solver, sorted(path.stem for path in folder.glob("*.yaml")))
            node = OmegaConf.create({"solver": OmegaConf.load(folder / f"{solver}.yaml")})
            changed["solver"] = instantiate(node.solver)
        return dataclasses.replace(
            self, **{key: value for key, value in changed.items() if value is not None}
        )

    @property
    def is_guided(self) -> bool:
        """Whether guidance does anything."""
        if self.guidance.func is unguided:
            return False
        return self.guidance_scale != (0 if self.guidance.func is Classifier else 1)

    def guided(self, denoiser: Any) -> Any:
        """The denoiser under this guidance."""
        if not self.is_guided:
            return denoiser
        weak = {"weak": self.weak} if self.guidance.func is Autoguidance else {}
        return self.guidance(denoiser, scale=self.guidance_scale, **weak)

    @property
    def guidance_text(self) -> str:
        """Guidance as a protocol stores it."""
        if not self.is_guided:
            return "none"
        weak = {"weak": self.weak_name} if self.guidance.func is Autoguidance else {}
        return describe(_changed(self.guidance, scale=self.guidance_scale, **weak))

    @property
    def guidance_numbers(self) -> dict[str, Any]:
        """Guidance as the numbers that a protocol stores beside its text."""
        channels = self.guidance.keywords.get("channels") if self.is_guided else None
        return {
            "guidance_scale": float(self.guidance_scale) if self.is_guided else 1.0,
            "guidance_channels": channels,
        }

    def facts(self) -> dict[str, Any]:
        """What is asked for, as JSON values."""
        numbers = {key: getattr(self, key) for key in ("n", "seed", "labels", "subsets")}
        steps = {"solver": describe(self.solver), "grid": describe(self.grid)}
        return {**numbers, **steps, "guidance": self.guidance_text}


def _changed(partial: Any, **values: Any) -> Any:
    """A partial of Hydra's with other values, as a plain one, which protocols can name."""
    return functools.partial(partial.func, *partial.args, **{**partial.keywords, **values})
