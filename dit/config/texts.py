"""The keys that hold a path or a name, and what such a text may be."""

import os

from omegaconf import DictConfig, OmegaConf

from dit.errors import InputError, check_name

# Of all verbs.
PATHS = (
    *("run", "run_dir", "out", "weak_run", "branch_from", "verify", "report_dir", "images", "reference"),
    *("statistics", "report", "autoencoder_directory", "data.directory", "data.path", "data.source.path"),
    *("study.directory", "study.pilot", "evaluation.reference", "autoencoder.spec.path"),
    "condition.spec.text.path",
)
NAMES = (
    *("run_name", "name", "weights", "extractor", "sample_weights", "device"),
    *("data.name", "study.name", "evaluation.extractor", "prompt", "negative"),
)
LONGEST = 255  # bytes of a file's name, on every file system in use


def check_texts(cfg: DictConfig) -> None:
    """Refuses a number, a list and the like where a path or a name belongs."""
    for key in (*PATHS, *NAMES):
        value = OmegaConf.select(cfg, key)
        if value is not None and not isinstance(value, str):
            remedy = f"If that is its name, quote it twice: '{key}=\"{value}\"'."
            raise InputError(key, value, "text or null", remedy)
        if key in PATHS and any(len(os.fsencode(part)) > LONGEST for part in (value or "").split("/")):
            raise InputError(key, value, f"a path whose names have at most {LONGEST} bytes each")
    for key in ("run_name", "data.name", "study.name"):
        if OmegaConf.select(cfg, key) is not None:
            check_name(key, OmegaConf.select(cfg, key))
    if not (OmegaConf.select(cfg, "name") or "").isprintable():  # of a model, as in "DiT-XL/2"
        raise InputError("name", cfg.name, "a name on one line")
    if OmegaConf.select(cfg, "data.directory", default="") is None:
        raise InputError(
            "data.directory", None, "a directory", "Leave it out for the one named after the data."
        )
