"""What a study's configuration says of its computations beside training, as plain numbers; without torch."""

from typing import Any

from omegaconf import DictConfig

from dit.config.facts import Facts
from dit.config.given import unnoted
from dit.config.parts import Parts
from dit.config.protocols import protocols
from dit.data.autoencoder import AutoencoderSpec, Identity, Pretrained, TrainedKL
from dit.study import overhead
from dit.study.overhead import Protocol
from dit.study.planned import Plan


def overhead_flops(parts: Parts, facts: Facts, plan: Plan) -> dict[str, float | None]:
    """FLOPs of validation, sampling, features and encoding of a plan's runs; None where one is not known."""
    cfg = parts.cfg
    with unnoted():  # to price a setting is no use of it
        pixels = int(cfg.data.get("image_size") or 0) ** 2
        encoder, decoder = _macs_per_pixel(parts.spec) or (None, None)
        macs = overhead.EXTRACTORS.get(str(cfg.evaluation.get("extractor")).partition(":")[0])
        sample = None if macs is None or decoder is None else macs + decoder * pixels
        drawn = [_protocol(cfg, node) for node in protocols(cfg).values()]
        found = overhead.forward_flops(plan, cfg.validation.n_draws, 1 + len(cfg.averages), drawn, sample)
        encoding = 0.0 if parts.is_encoded else _encoding(parts, facts, encoder, decoder, pixels)
    return {**found, "encoding": encoding}


def _protocol(cfg: DictConfig, node: DictConfig) -> Protocol:
    solver, guidance = cfg.evaluation.solver, str(cfg.evaluation.guidance._target_)
    name = str(solver._target_).rpartition(".")[2]
    calls = overhead.calls(name, cfg.evaluation.grid.n_steps, solver.get("order", 1))
    guided = not guidance.endswith("unguided") and node.guidance_scale != 1
    return Protocol(node.at, node.n, None if calls is None else calls * (2 if guided else 1))


def _macs_per_pixel(spec: AutoencoderSpec) -> tuple[float, float] | None:
    """Multiply-adds of encoder and decoder for one pixel; None where they are not known."""
    if isinstance(spec, Identity):
        return 0.0, 0.0
    if isinstance(spec, TrainedKL):
        return overhead.TRAINED.get((*spec.widths, spec.latent_channels))
    return overhead.AUTOENCODERS.get(spec.path) if isinstance(spec, Pretrained) else None


def _encoding(
    parts: Parts, facts: Facts, encoder: float | None, decoder: float | None, pixels: int
) -> float | None:
    """Encoding every picture, mirrored ones too; and training the autoencoder where that is done on the spot."""
    if encoder is None or decoder is None or facts.n_train is None:
        return None
    pictures = (facts.n_train + (facts.n_held_out or 0)) * (2 if parts.cfg.data.get("flip") else 1)
    spec: Any = parts.spec
    trained = 3 * spec.steps * spec.batch_size * (encoder + decoder) if isinstance(spec, TrainedKL) else 0.0
    return 2 * pixels * (pictures * encoder + trained)
