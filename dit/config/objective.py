"""A run's objective and method, as its configuration names them; imports no torch."""

from omegaconf import DictConfig

from dit.domain import Domain
from dit.errors import InputError

FIT = "dit.training.methods.Fit"  # what a configuration without a method means, and hashes as


def is_fit(cfg: DictConfig) -> bool:
    """Whether a run's method is the plain one: that of all runs made before there were others."""
    return "method" not in cfg or cfg.method._target_ == FIT


def out_channels(cfg: DictConfig, domain: Domain) -> int:
    """Channels of the network's output: those of the data, more where it learns the variance; of tokens their values.

    Raises:
        InputError: the objective is one of tokens and the data are none, or the other way round.
    """
    if bool(domain.vocabulary) != ("masking" in cfg.objective):
        kind, objective = ("tokens", "masked") if domain.vocabulary else ("numbers", "rectified_flow")
        got = f"({cfg.objective._target_.rpartition('.')[2]} for data of {kind})"
        raise InputError("objective", got, f"an objective of {kind}, such as objective={objective}")
    return domain.vocabulary or domain.channels * (2 if cfg.objective.get("learned_variance") else 1)


def describe_objective(cfg: DictConfig) -> str:
    """The objective's values, and the method where it is not the plain one."""
    node = cfg.objective
    keys = [key for key in ("masking", "path", "target", "times", "weight") if key in node]
    parts = [node[key]["_target_"].rsplit(".", 1)[-1] for key in keys]
    parts += ["masked", node.estimator] if "masking" in node else []
    parts += ["learned_variance"] if node.get("learned_variance") else []
    parts += [] if is_fit(cfg) else [cfg.method._target_.rsplit(".", 1)[-1]]
    return "+".join(parts)
