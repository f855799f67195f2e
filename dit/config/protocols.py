"""The protocols by which samples are measured while a run trains: ``evaluation.protocols``."""

from omegaconf import DictConfig

from dit.errors import InputError, check_choice

# What a protocol of an evaluation says, besides when it is measured.
PROTOCOL = ("n", "seed", "labels", "guidance_scale", "preview")


def protocols(cfg: DictConfig) -> dict[str, DictConfig]:
    """The protocols by which samples are measured in training, whole and each at a time that there is."""
    found = cfg.evaluation.protocols or {}
    if not isinstance(found, DictConfig | dict):
        raise InputError("evaluation.protocols", found, "protocols by name", "See conf/evaluation.")
    for name, node in found.items():
        missing = [key for key in ("at", *PROTOCOL) if key not in node]
        if missing:
            raise InputError(
                f"evaluation.protocols.{name}",
                f"(no {', '.join(missing)})",
                "a whole protocol, as in conf/evaluation",
                f"Where an experiment's file changes one that evaluation= does not have: ~evaluation.protocols.{name}",
            )
        check_choice(f"evaluation.protocols.{name}.at", node.at, ("read_points", "end"))
    return {str(name): node for name, node in found.items()}
