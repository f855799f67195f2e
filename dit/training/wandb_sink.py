"""Weights & Biases: a copy of the records, for looking at. The only file that knows wandb."""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dit.errors import InputError, check_choice
from dit.trust import picture_below

log = logging.getLogger("dit")

MODES = (None, "online", "offline", "disabled")
# Seconds that a server has to answer, before the run goes on offline; and to take the last rows (the disk has them).
LIMITS = {"WANDB_INIT_TIMEOUT": 15.0, "WANDB_FINISH_TIMEOUT": 300.0}
# W&B's own variables, which win over what we would say
VARIABLES = {
    **{"project": "WANDB_PROJECT", "mode": "WANDB_MODE", "id": "WANDB_RUN_ID", "name": "WANDB_NAME"},
    **{
        "group": "WANDB_RUN_GROUP",
        "job_type": "WANDB_JOB_TYPE",
        "dir": "WANDB_DIR",
        "resume": "WANDB_RESUME",
    },
}
# Words of names. What stands under the first is hidden, under the others where it is text: sizes count tokens.
SECRET = {"secret", "secrets", "password", "passwords", "passwd", "passphrase", "credential", "credentials"}
SECRET_TEXT = {"key", "keys", "apikey", "token", "tokens", "auth"}


class WandbSink:
    """Sends every record of a run to W&B.

    The run's id is the hash of its configuration, so a resumed run continues its own page; rows are drawn against
    ``images_seen`` and ``train_flops``. W&B's own step is ``images_seen`` too: the parts of a run that was offline fit
    together, and rows that come again after a kill or a rollback are not logged twice. Once W&B fails it gets no more
    rows, and the run goes on. Keys come from the environment alone, and what W&B's own variables say goes before ours.

    Args:
        project: W&B project.
        mode: ``online`` | ``offline`` | ``disabled``; None is online where WANDB_API_KEY is set, else offline. A server
            that does not answer makes it offline.
        run_id: of the run.
        group: the study.
        directory: of the run: W&B keeps its files there, and pictures of records lie there.
        settings: the run's configuration; values under names that look like secrets are left out.
    """

    def __init__(
        self,
        project: str,
        mode: str | None,
        *,
        run_id: str,
        group: str | None,
        directory: str,
        settings: dict[str, Any],
    ) -> None:
        _wandb()
        self._directory, self._failed = Path(directory), False
        facts = {"id": run_id, "name": settings.get("run_name"), "group": group, "dir": directory}
        arguments = _arguments(project, mode, **facts)
        self._run: Any = None
        self._try(self._begin, {**arguments, "config": _redacted(settings)})

    def _begin(self, arguments: dict[str, Any]) -> None:
        self._run = _init(arguments)
        for axis in ("images_seen", "train_flops"):
            self._run.define_metric(axis)
        self._run.define_metric("*", step_metric="images_seen")

    def record(self, row: dict[str, Any]) -> None:
        """Logs the numbers of a record under its kind (``validation/ema/loss``); the run's facts as its summary.

        Numbers of samples stand under the hash of their protocol too (``samples/ema/<hash>/frechet_distance``), so that
        no axis mixes protocols; the protocol itself goes to the configuration, and the picture beside the numbers.
        """
        self._try(self._record, row)

    def _record(self, row: dict[str, Any]) -> None:
        if row["kind"] == "run":
            self._run.config.update({"facts": _redacted(row)}, allow_val_change=True)
            return
        clock = {axis: row[axis] for axis in ("images_seen", "train_flops")}
        name = "/".join(str(row[key]) for key in ("kind", "weights", "protocol_hash") if key in row)
        logged = {**clock, **dict(_numbers(name, row, skip=set(clock)))}
        if "protocol" in row:
            protocols = {**self._run.config.get("protocols", {}), row["protocol_hash"]: row["protocol"]}
            self._run.config.update({"protocols": protocols}, allow_val_change=True)
        picture = picture_below(self._directory, row.get("grid"))
        if picture is not None:
            logged[f"{name}/grid"] = _wandb().Image(str(picture))
        self._log(logged, late=row["kind"] == "event")

    def watch(self, clock: dict[str, float], facts: dict[str, Any]) -> None:
        """Logs rates, memory and waiting for data under ``speed/``, without the ones that are not known here."""
        known = {f"speed/{name}": value for name, value in facts.items() if value is not None}
        self._try(self._log, {**clock, **known})

    def _log(self, values: dict[str, Any], late: bool = False) -> None:
        """Logs values at their clock, unless W&B is beyond it and has them, which is never so for ``late`` ones.

        A run that W&B resumes is one step beyond the last that it has, where the measures of that clock may be missing.
        """
        step, images_seen = self._run.step, int(values["images_seen"])
        if late or images_seen >= step - 1:
            self._run.log(values, step=max(images_seen, step))

    def close(self) -> None:
        """Ends the W&B run."""
        self._try(lambda: self._run.finish())
        if self._failed:
            with suppress(Exception):
                _wandb().teardown()  # what its exit hook would do, with a traceback

    def _try(self, act: Callable[..., None], *arguments: Any) -> None:
        """Does something at W&B, which holds a copy alone: its trouble is said, and is not the run's.

        SLURM sends SIGTERM to W&B's service too, which then drops the rows of its last seconds.
        """
        if self._failed:
            return
        try:
            act(*arguments)
        except Exception as error:
            self._failed = True
            log.warning("W&B gets no more rows of this run, which goes on: %r", error)


def log_study(
    project: str,
    mode: str | None,
    *,
    study: str,
    directory: Path,
    numbers: Mapping[str, float],
    figures: Mapping[str, Path],
    tables: Mapping[str, tuple[list[str], list[list[Any]]]],
    page: Path,
) -> str:
    """Logs a study's report as a run of its own in the study's group, and makes a W&B report page where that can be.

    The run's id is made of the study's name, so a later report replaces an earlier one's summary.

    Args:
        project: W&B project.
        mode: as for ``WandbSink``.
        study: name of the study, the group of its runs.
        directory: where W&B keeps its files.
        numbers: what becomes the run's summary.
        figures: title -> PNG file.
        tables: name -> (columns, rows).
        page: the report in HTML.

    Returns:
        What was done, in words; where the report page is, or why there is none.
    """
    wandb = _wandb()
    facts = {"name": f"{study}: report", "group": study, "job_type": "report", "dir": str(directory)}
    run_id = "report-" + hashlib.sha256(study.encode()).hexdigest()[:16]
    run = _init(_arguments(project, mode, ("id", "name", "job_type"), id=run_id, **facts))
    mode = str(run.settings.mode)
    logged: dict[str, Any] = {f"report/{title}": wandb.Image(str(file)) for title, file in figures.items()}
    for name, (columns, rows) in tables.items():
        table = wandb.Table(columns=columns, allow_mixed_types=True)  # pyright: ignore[reportArgumentType]
        for row in rows:
            table.add_data(*row)
        logged[f"tables/{name}"] = table
    run.log({**logged, "report/page": wandb.Html(page.read_text(encoding="utf-8"))})
    run.summary.update(dict(numbers))
    entity, media = run.entity, [f"report/{title}" for title in figures]
    project = run.project or project
    run.finish()
    said = f"logged the report of {study} to W&B ({mode})"
    try:
        return f"{said}; {_report_page(mode, entity, project, study, media)}"
    except Exception as error:  # the network's; the report itself is written
        return f"{said}; no W&B report page: {error!r}"


def _report_page(mode: str, entity: str, project: str, study: str, media: list[str]) -> str:
    """Saves a W&B report of a study's runs and of its summary run; says where it is, or why there is none."""
    if mode != "online":
        return f"no W&B report page: not logged in (mode {mode})"
    try:
        import wandb_workspaces.reports.v2 as reports  # pyright: ignore[reportMissingImports]
    except ImportError:
        return "no W&B report page: wandb-workspaces is not installed"
    runs = reports.Runset(entity=entity, project=project, filters=f"Metric('Group') == {study!r}")
    curves = reports.LinePlot(
        title="Validation loss", x="train_flops", y=["validation/ema/loss"], log_x=True, log_y=True
    )
    pictures = reports.MediaBrowser(title="Report", media_keys=media)
    page = reports.Report(
        entity=entity,
        project=project,
        title=f"{study}: scaling study",
        description="Made by dit report from the study's records.",
        blocks=[reports.PanelGrid(runsets=[runs], panels=[curves, pictures])],
    )
    page.save()
    return f"W&B report page: {page.url}"


def _wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        remedy = "pip install wandb, or logger=none."
        raise InputError("logger", "wandb", f"a logger that is installed ({error})", remedy) from error
    return wandb


def _arguments(project: str, mode: str | None, fixed: Sequence[str] = (), **facts: Any) -> dict[str, Any]:
    """What ``wandb.init`` is told: ours, but for what variables of W&B's own say of others than the ``fixed`` keys."""
    check_choice("logger.mode", mode, MODES)
    keyed = "online" if os.environ.get("WANDB_API_KEY") else "offline"
    ours = {"project": project, "mode": mode or keyed, "resume": "allow", **facts}
    named = {key: os.environ.get(name) for key, name in VARIABLES.items() if key not in fixed}
    said = {key: value for key, value in named.items() if value}
    if "mode" in said:
        check_choice("WANDB_MODE", said["mode"], (*MODES[1:], "shared", "dryrun", "run"))
    for key, asked in (("project", project), ("mode", mode)):
        if key in said and asked not in (None, said[key]):
            log.info("%s=%s goes before logger.%s=%s", VARIABLES[key], said[key], key, asked)
    return {**ours, **said}


def _init(arguments: dict[str, Any]) -> Any:
    """A run of W&B's: where it asks for a server that does not answer, an offline one, which is said."""
    wandb = _wandb()
    limits = {name: limit for name, limit in LIMITS.items() if name not in os.environ}
    ours = {name.removeprefix("WANDB_").lower(): limit for name, limit in limits.items()}
    try:
        return wandb.init(**arguments, settings=wandb.Settings(**ours))
    except Exception as error:
        if arguments["mode"] in ("offline", "disabled", "dryrun"):
            raise
        said = str(error).partition("\n")[0] or repr(error)
        log.warning("W&B cannot be reached (%s): this run is kept offline, for wandb sync", said)
        wandb.teardown()  # its service holds the run's id for the server that does not answer
        return wandb.init(**{**arguments, "mode": "offline"})


def _numbers(name: str, row: dict[str, Any], skip: set[str]) -> Any:
    for key, value in row.items():
        if key == "loss_bins":
            yield from (
                (f"{name}/loss_bin_{index}", part) for index, part in enumerate(value) if part is not None
            )
        elif isinstance(value, (int, float)) and key not in skip | {"schema", "n", "n_draws"}:
            yield f"{name}/{key}", value


def _redacted(value: Any, secret: bool = False) -> Any:
    """A configuration without its secrets: told by whole words of their names, so that ``macs_per_token`` stays.

    Args:
        value: of any kind.
        secret: whether it stands under a name of SECRET_TEXT.
    """
    if isinstance(value, dict):
        named = [(key, child, _words(str(key))) for key, child in value.items()]
        shown = [(key, child, words) for key, child, words in named if not words & SECRET]
        pairs = ((key, _redacted(child, secret or bool(words & SECRET_TEXT))) for key, child, words in shown)
        return {key: child for key, child in pairs if child is not _HIDDEN}
    if isinstance(value, (list, tuple)):
        return [child for child in (_redacted(child, secret) for child in value) if child is not _HIDDEN]
    return _HIDDEN if secret and isinstance(value, str) else value


_HIDDEN = object()


def _words(name: str) -> set[str]:
    """The words of ``api_key``, ``apiKey`` or ``API-KEY``, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}
