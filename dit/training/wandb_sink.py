"""Weights & Biases: a copy of the records, for looking at. The only file that knows wandb."""

import os
from pathlib import Path
from typing import Any

from dit.errors import check_choice

SECRET = ("key", "token", "secret", "password")


class WandbSink:
    """Sends every record of a run to W&B.

    The run's id is the hash of its configuration, so a resumed run continues its own page; rows are drawn against
    ``images_seen`` and ``train_flops``, not against W&B's step. Keys come from the environment alone.

    Args:
        project: W&B project.
        mode: ``online`` | ``offline`` | ``disabled``; None is online where WANDB_API_KEY is set, else offline.
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
        check_choice("logger.mode", mode, (None, "online", "offline", "disabled"))
        import wandb

        self._directory, self._image = Path(directory), wandb.Image
        self._run = wandb.init(
            project=project,
            mode=mode or ("online" if os.environ.get("WANDB_API_KEY") else "offline"),  # pyright: ignore[reportArgumentType]
            id=run_id,
            name=settings.get("run_name"),
            group=group,
            dir=directory,
            resume="allow",
            config=_redacted(settings),
        )
        for axis in ("images_seen", "train_flops"):
            self._run.define_metric(axis)
        self._run.define_metric("*", step_metric="images_seen")

    def record(self, row: dict[str, Any]) -> None:
        """Logs the numbers of a record under its kind (``validation/ema/loss``); the run's facts as its summary.

        Numbers of samples stand under the hash of their protocol too (``samples/ema/<hash>/frechet_distance``), so that
        no axis mixes protocols; the protocol itself goes to the configuration, and the picture beside the numbers.
        """
        if row["kind"] == "run":
            self._run.config.update({"facts": _redacted(row)}, allow_val_change=True)
            return
        clock = {axis: row[axis] for axis in ("images_seen", "train_flops")}
        name = "/".join(str(row[key]) for key in ("kind", "weights", "protocol_hash") if key in row)
        logged = {**clock, **dict(_numbers(name, row, skip=set(clock)))}
        if "protocol" in row:
            protocols = {**self._run.config.get("protocols", {}), row["protocol_hash"]: row["protocol"]}
            self._run.config.update({"protocols": protocols}, allow_val_change=True)
        if row.get("grid") and (self._directory / row["grid"]).is_file():
            logged[f"{name}/grid"] = self._image(str(self._directory / row["grid"]))
        self._run.log(logged)

    def watch(self, clock: dict[str, float], facts: dict[str, Any]) -> None:
        """Logs rates, memory and waiting for data under ``speed/``, without the ones that are not known here."""
        known = {f"speed/{name}": value for name, value in facts.items() if value is not None}
        self._run.log({**clock, **known})

    def close(self) -> None:
        """Ends the W&B run."""
        self._run.finish()


def _numbers(name: str, row: dict[str, Any], skip: set[str]) -> Any:
    for key, value in row.items():
        if key == "loss_bins":
            yield from (
                (f"{name}/loss_bin_{index}", part) for index, part in enumerate(value) if part is not None
            )
        elif isinstance(value, (int, float)) and key not in skip | {"schema", "n", "n_draws"}:
            yield f"{name}/{key}", value


def _redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            k: _redacted(v) for k, v in value.items() if not any(word in str(k).lower() for word in SECRET)
        }
    return value
