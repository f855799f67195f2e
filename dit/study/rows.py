"""The schema of a study's records: fields, types and bounds of each kind of row. A stranger may have written them."""

from typing import Any

from dit.errors import InputError, check_name
from dit.records import KINDS, PROTOCOL, SCHEMA
from dit.trust import INTEGER, LIST, NULL, NUMBER, OBJECT, TEXT, Fields, check_fields

Row = dict[str, Any]

# Fields that a row must have and their types; further fields are kept as they are. A measured number may be
# null (a diverged run; the row then says so under "non_finite").
FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "run": {
        "study": TEXT,
        "config_hash": TEXT,
        "git_commit": (str, NULL),
        "objective": (str, dict),
        "network": OBJECT,
        "n_params_total": INTEGER,
        "n_params_by_group": OBJECT,
        "tokens_per_image": INTEGER,
        "macs_per_image": NUMBER,
        "macs_per_token": NUMBER,
        "train_flops_per_image": NUMBER,
        "batch_size": INTEGER,
        "lr": NUMBER,
        "lr_rule": (str, dict, NULL),
        "seed": INTEGER,
        "warmup_images": NUMBER,
        "ema": (str, dict, list, int, float, NULL),
        "data": OBJECT,
    },
    "train": {"images_seen": INTEGER, "train_flops": NUMBER, "loss": (*NUMBER, NULL)},
    "event": {"images_seen": INTEGER, "train_flops": NUMBER, "event": TEXT, "step": INTEGER},
    "validation": {
        "images_seen": INTEGER,
        "train_flops": NUMBER,
        "budget_flops": (*NUMBER, NULL),
        "weights": TEXT,
        "loss": (*NUMBER, NULL),
        "loss_bins": LIST,
        "log_snr_edges": LIST,
        "n_draws": INTEGER,
        "draws_hash": TEXT,
    },
    "samples": {
        "images_seen": INTEGER,
        "train_flops": NUMBER,
        "budget_flops": (*NUMBER, NULL),
        "weights": TEXT,
        "frechet_distance": (*NUMBER, NULL),
        "n": INTEGER,
        "protocol": OBJECT,
        "protocol_hash": TEXT,
    },
}
OF_EVALUATIONS: dict[str, tuple[type, ...]] = {
    "run": TEXT, "images_seen": INTEGER, "train_flops": NUMBER, "n": INTEGER, "protocol": OBJECT,
}  # fmt: skip
# Numbers of a run row that fits divide by.
SIZES = (
    "n_params_total",
    "tokens_per_image",
    "macs_per_image",
    "macs_per_token",
    "train_flops_per_image",
    "batch_size",
)
# What tells one row of a kind from the next one of the same run.
IDENTITY = {
    "run": (),
    "train": ("images_seen",),
    "event": ("images_seen", "event", "step"),
    "validation": ("images_seen", "budget_flops", "weights", "draws_hash"),
    "samples": ("images_seen", "budget_flops", "weights", "protocol_hash"),
}
# Fields that a row may lack, or an object in it.
MAY: dict[str, Fields] = {
    "samples": dict.fromkeys(
        ("accuracy", "frechet_distance_infinity", "frechet_distance_infinity_se"), (*NUMBER, NULL)
    ),
    "run": {"branch": (dict, NULL)},
    "event": dict.fromkeys(("loss", "grad_norm", "mean_before", "sd_before"), (*NUMBER, NULL)),
    "validation": {"unit": TEXT},
}
OF_DATA: Fields = {
    "name": (str, NULL),
    **dict.fromkeys(("manifest_hash", "autoencoder"), (str, NULL)),
    **dict.fromkeys(("n_train", "n_held_out", "num_classes"), (int, NULL)),
}


def check_row(where: str, row: Row) -> None:
    """Raises InputError unless the row has the schema, the kind and the fields of its kind."""
    if row.get("schema") != SCHEMA:
        raise InputError(
            f"{where}: schema", row.get("schema"), str(SCHEMA), "Read it with the version that wrote it."
        )
    kind = row.get("kind")
    if kind not in KINDS:
        raise InputError(f"{where}: kind", kind, "one of " + ", ".join(KINDS))
    check_name(f"{where}: run", row.get("run"))  # it names a folder, and stands on pages and terminals
    check_fields(where, row, FIELDS[kind], MAY.get(kind, {}))
    if kind == "run":
        _check_run(where, row)
    elif row["images_seen"] < 0 or row["train_flops"] < 0:
        raise InputError(
            f"{where}: images_seen, train_flops", (row["images_seen"], row["train_flops"]), ">= 0"
        )
    if kind == "validation":
        _check_bins(where, row)
    if kind == "samples":
        check_samples(where, row)


def check_samples(where: str, row: Row) -> None:
    """Raises InputError unless the metrics of a ``samples`` row are numbers, and its protocol is one."""
    check_fields(where, row, {}, MAY["samples"])
    check_fields(f"{where}: protocol", row["protocol"], {}, PROTOCOL)
    for name in ("n", "nfe"):  # figures divide by them
        if (found := row["protocol"].get(name)) is not None and found < 1:
            raise InputError(f"{where}: protocol: {name}", found, ">= 1")


def _check_bins(where: str, row: Row) -> None:
    for name, types in (("loss_bins", (*NUMBER, NULL)), ("log_snr_edges", NUMBER)):
        for place, found in enumerate(row[name]):
            check_fields(f"{where}: {name}", {str(place): found}, {str(place): types})


def _check_run(where: str, row: Row) -> None:
    """Raises InputError unless the sizes that fits divide by are positive, and what pages show can be shown."""
    check_name(f"{where}: study", row["study"])
    check_fields(f"{where}: data", row["data"], {}, OF_DATA)
    check_fields(f"{where}: branch", row.get("branch") or {"config_hash": ""}, {"config_hash": TEXT})
    check_fields(
        f"{where}: n_params_by_group",
        row["n_params_by_group"],
        dict.fromkeys(row["n_params_by_group"], NUMBER),
    )
    for name in SIZES:
        if row[name] <= 0:
            raise InputError(f"{where}: {name}", row[name], "> 0")
