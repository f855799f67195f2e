"""A run's settings checked before its data are read: by training, and by the plan of a study for all of its runs."""

import logging

from omegaconf import DictConfig, OmegaConf

from dit.config.given import given_values, refuse_given, shadowed, unnoted
from dit.config.instantiation import check_parts as check_targets
from dit.config.instantiation import instantiate
from dit.config.parts import Parts, check_list
from dit.config.protocols import protocols
from dit.errors import InputError, check_choice, check_number

log = logging.getLogger("dit")

# What takes torch to check. Where neither words nor a user's own file gave any of it, it stands as conf/ ships it.
OF_TORCH = (
    "objective",
    "method",
    "optimizer",
    "averages",
    "evaluation",
    "strategy",
    "accumulation",
    "compile",
)
OF_TORCH += ("activation_checkpointing", "label_dropout")


def check_run(parts: Parts, *, whole: bool) -> None:
    """Raises InputError where a run's settings are wrong, whatever its data.

    Args:
        parts: of a run, or of a study whose runs share them.
        whole: whether the configuration says what network it is and how long it trains; a study says it for its runs.
    """
    from dit.training.settings import seconds

    cfg = parts.cfg
    with unnoted():
        check_targets(OmegaConf.to_container(cfg, resolve=True))
    parts.make("settings", "schedule")
    seconds(cfg.max_time)
    if whole:
        parts.make("network")
        _check_end(parts)
        check_list("read_at_flops", cfg.read_at_flops)
    check_choice("hardware.device", cfg.hardware.device, ("auto", "cpu", "cuda"))
    check_choice("hardware.precision", cfg.hardware.precision, ("auto", "32-true", "bf16-mixed"))
    for key in ("threads", "processes"):
        check_number(f"hardware.{key}", cfg.hardware[key], low=1, integer=True)
    if cfg.hardware.workers is not None:
        check_number("hardware.workers", cfg.hardware.workers, low=0, integer=True)
    for key, low in (("n_bins", 1), ("n_draws", cfg.validation.n_bins), ("seed", 0)):
        check_number(f"validation.{key}", cfg.validation[key], low=low, integer=True)
    if protocols(cfg):
        check_choice("sample_weights", cfg.sample_weights, ["raw", *cfg.averages])


def _check_end(parts: Parts) -> None:
    """Holds to the end of a run what must fit into it, where the end is known without the data."""
    images = parts.duration.in_images(parts.cfg.batch_size)
    if images is not None:
        check_averages(parts.cfg, images, images)
        parts.schedule.check(images, parts.cfg.warmup_images)


def check_parts(parts: Parts) -> None:
    """The same of the parts that torch makes: objective, method, optimizer, averages, strategy; and of sampling."""
    cfg = parts.cfg
    parts.make("objective", "method", "optimizer", "profiles", "strategy")
    if cfg.optimizer.lr_rule == "constant":
        refuse_given(cfg, "optimizer.base_width", "optimizer.lr_rule=constant has one rate for all widths")
    check_compiler(parts.strategy.compile)
    if not protocols(cfg):
        return
    from dit.evaluation.catalogue import check_metrics
    from dit.evaluation.generate import PRECISIONS

    check_metrics(cfg.evaluation.metrics)
    check_number("evaluation.batch_size", cfg.evaluation.batch_size, low=1, integer=True)
    check_choice("evaluation.precision", cfg.evaluation.precision, PRECISIONS)
    parts.make("samplings")


def check_planned(parts: Parts) -> None:
    """Checks the settings of a study's runs as training does; imports torch only for given parts that need it."""
    check_run(parts, whole=False)
    with shadowed(parts.cfg.network, ["width"]):  # the grid has the widths
        instantiate(parts.cfg.network)
    if any(given.key.partition(".")[0] in OF_TORCH for given in given_values(parts.cfg, of_file_too=True)):
        check_parts(parts)


def check_averages(cfg: DictConfig, first: int, last: int) -> None:
    """Holds the half-lives of averages to what they average.

    Args:
        cfg: of a run, or of a study whose runs share it.
        first: images at the first reading.
        last: images at the end.

    Raises:
        InputError: a half-life exceeds the run: half of the average and more would be the weights before training.
    """
    for name, node in cfg.averages.items():
        half_life = node.get("half_life_images")
        if half_life is None:
            continue
        key, remedy = (
            f"averages.{name}.half_life_images",
            "Shorten it, train longer, or choose averages=power.",
        )
        check_number(key, half_life, above=0)
        if half_life > last:
            allowed = (
                f"at most the {last} images of a run, or most of its average is the weights before training"
            )
            raise InputError(key, half_life, allowed, remedy)
        if half_life > first:
            log.warning(
                "%s=%g exceeds the %d images of the first reading: its average is mostly the weights before training. "
                "%s",
                *(key, half_life, first, remedy),
            )


def check_compiler(compile: str) -> None:
    """Raises InputError where the network is to be compiled and nothing can compile."""
    import os
    import shutil

    if compile != "none" and not any(
        map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++", "cl"))
    ):
        raise InputError(
            "compile", compile, "none, where there is no C++ compiler", "Install g++, or name it by CXX."
        )
