"""Sample metrics for the trainer and for ``dit evaluate``: one yardstick (extractor, reference, codec) per process."""

import dataclasses
import functools
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import DictConfig, OmegaConf

from dit.config.data import check_images
from dit.config.given import shadowed
from dit.config.instantiation import config_dir, instantiate
from dit.config.protocols import PROTOCOL
from dit.data.codec import Codec
from dit.data.latents import LatentSet
from dit.data.manifest import manifest_hash, read_manifest
from dit.diffusion.guidance import Autoguidance, Classifier, unguided
from dit.errors import InputError, check_choice, check_number
from dit.evaluation.catalogue import check_metrics
from dit.evaluation.distributed import place
from dit.evaluation.evaluate import Evaluation, evaluate_samples
from dit.evaluation.extractors import EXTRACTORS, load_extractor
from dit.evaluation.files import images_identity, open_reference
from dit.evaluation.generate import PRECISIONS
from dit.evaluation.grids.pictures import picture_grid, write_png
from dit.evaluation.measured import Measured
from dit.evaluation.protocol import describe
from dit.evaluation.reference import latents_reference

COLUMNS = 10  # of the picture of the first samples


def _check_pictures(directory: str) -> None:
    """Raises InputError where samples are no pictures: there is nothing here to measure them by."""
    manifest = read_manifest(directory)
    if "image_shape" not in manifest:
        got, allowed = (
            f"(samples {tuple(manifest['shape'])} of {directory})",
            f"pictures, measured by one of {EXTRACTORS}",
        )
        remedy = (
            "Compare such runs by their validation loss; samples.npz of dit sample is there to be measured."
        )
        raise InputError("evaluation.extractor", got, allowed, remedy)


class Yardstick:
    """What samples of one data set are measured with.

    Args:
        cfg: a configuration with ``data`` and ``evaluation``.
        device: where features and images are computed.
    """

    def __init__(self, cfg: DictConfig, device: torch.device) -> None:
        self.cfg, self.evaluation, self.device = cfg, cfg.evaluation, device
        _check_pictures(cfg.data.directory)
        self.metrics = check_metrics(self.evaluation.metrics)
        check_number("evaluation.batch_size", self.evaluation.batch_size, low=1, integer=True)
        check_choice("evaluation.precision", self.evaluation.precision, PRECISIONS)
        if self.evaluation.reference is not None and not Path(self.evaluation.reference).exists():
            raise InputError(
                "evaluation.reference", self.evaluation.reference, "a file or folder that exists"
            )
        self.extractor = load_extractor(self.evaluation.extractor, device)  # at once: its file may be missing

    @property
    def distributed(self) -> bool:
        """Whether this process is one of several, which then all measure together."""
        return dist.is_initialized() and dist.get_world_size() > 1

    @cached_property
    def codec(self) -> Codec:
        """Latents to images."""
        return Codec.open(self.cfg.data.directory, self.device)

    @cached_property
    def decoder(self) -> str:
        """What a protocol calls the autoencoder: its kind, and the hash of its files where it has some."""
        known = read_manifest(self.cfg.data.directory)["autoencoder"]
        return known["kind"] if known["sha256"] is None else f"{known['kind']} {known['sha256'][:16]}"

    @cached_property
    def reference(self) -> Measured:
        """The reference that was named, or the source's training images, as they are before any autoencoder."""
        options: dict[str, Any] = {"distributed": self.distributed}
        if self.evaluation.reference is not None:
            return open_reference(
                self.evaluation.reference,
                self.extractor,
                self.metrics,
                image_size=read_manifest(self.cfg.data.directory)["image_shape"][1],
                batch_size=self.evaluation.batch_size,
                **options,
            )
        latents, source = self._training_images()
        return latents_reference(
            latents, source, self.extractor, self.metrics, cache=latents.directory, **options
        )

    def _training_images(self) -> tuple[LatentSet, Any]:
        check_images(self.cfg)
        latents = LatentSet(self.cfg.data.directory, "train")
        return latents, instantiate(self.cfg.data.source)

    def reference_identity(self) -> str:
        """What the reference is, without measuring it."""
        if self.evaluation.reference is not None:
            return images_identity(self.evaluation.reference)
        return f"train of {manifest_hash(self.cfg.data.directory)}"


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
    def read(cls, evaluation: DictConfig, name: str, **more: Any) -> "Sampling":
        """A protocol of an evaluation."""
        node = evaluation.protocols[name]
        parts = {key: instantiate(evaluation[key]) for key in ("solver", "grid")}
        with shadowed(evaluation.guidance, ["scale"]):  # each protocol has its own
            parts["guidance"] = instantiate(evaluation.guidance)
        return cls(name=name, **{key: node[key] for key in PROTOCOL}, **parts, **more)

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


def measure(yardstick: Yardstick, sampling: Sampling, denoiser: Any, weights: str) -> Evaluation:
    """A denoiser's samples, drawn one way and measured; on every rank of the process group, if there is one."""
    held_out = LatentSet(yardstick.cfg.data.directory, "validation")  # whose texts samples are made for
    return evaluate_samples(
        sampling.guided(denoiser),
        yardstick.codec,
        yardstick.extractor,
        yardstick.reference,
        n=sampling.n,
        condition=held_out.drawn(sampling.labels, sampling.seed, sampling.n),
        solver=sampling.solver,
        grid=sampling.grid,
        guidance=sampling.guidance_text,
        **sampling.guidance_numbers,
        metrics=yardstick.metrics,
        subsets=sampling.subsets,
        labels=sampling.labels,
        seed=sampling.seed,
        batch_size=yardstick.evaluation.batch_size,
        weights=weights,
        precision=yardstick.evaluation.precision,
        decoder=yardstick.decoder,
        preview=sampling.preview,
        device=yardstick.device,
        distributed=yardstick.distributed,
    )


class SampleMeasure:
    """One protocol of an evaluation, applied to a denoiser: the fields of a ``samples`` record and a picture.

    Args:
        yardstick: extractor, reference and codec.
        name: of the protocol.
        protocol: ``n``, ``seed``, ``labels``, ``guidance_scale``, ``preview``.
        run_dir: pictures go to ``samples/`` in it.
    """

    def __init__(self, yardstick: Yardstick, name: str, protocol: Any, run_dir: Path) -> None:
        self.yardstick, self.run_dir = yardstick, run_dir
        self.sampling = Sampling.read(yardstick.evaluation, name)

    def __call__(self, denoiser: Any, moment: str, weights: str) -> dict[str, Any]:
        """Generates, measures and draws: the fields of a ``samples`` record; every rank must call it."""
        found = measure(self.yardstick, self.sampling, denoiser, weights)
        picture = draw(found, self.run_dir, f"{moment}-{self.sampling.name}", self.yardstick.distributed)
        return {**fields(found), "grid": picture}


def fields(found: Evaluation) -> dict[str, Any]:
    """An evaluation as fields of a ``samples`` record."""
    return {
        "frechet_distance": None,  # which records always have, measured or not
        **found.metrics,
        "protocol": found.protocol.as_dict(),
        "protocol_hash": found.protocol.hash,
    }


def draw(found: Evaluation, directory: Path, name: str, distributed: bool) -> str | None:
    """Writes the first samples as a picture, on the first rank; its path below the directory, None for none."""
    if not len(found.preview):
        return None
    picture = f"samples/{name}.png"
    if place(distributed)[0] == 0:
        write_png(directory / picture, picture_grid(found.preview, columns=COLUMNS))
    return picture
