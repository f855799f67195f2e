"""The parts of a study that enter no law, with the reason: runs without records, excluded readings, torn lines."""

from collections.abc import Mapping

from dit.study.readings import Points, branches
from dit.study.records import Study


def lost(study: Study) -> dict[str, str]:
    """Runs that were planned or begun and of which no point is there, and why; branches, which have none, apart."""
    begun = {file.name for file in study.directory.glob("runs/*") if file.is_dir()}
    planned = {
        run["name"] for run in study.plan.get("runs", []) if isinstance(run, Mapping) and "name" in run
    }
    known, branched = {run["run"] for run in study.runs}, branches(study)
    read = {row["run"] for row in study.validation}
    at_budgets = {row["run"] for row in study.validation if row["budget_flops"] is not None}
    found = {name: _unbegun(study, name) for name in sorted((begun | planned) - known)}
    for name in sorted(known - at_budgets - branched.keys()):
        found[name] = "it was read at no budget" if name in read else "it has no validation reading"
    return found


def _unbegun(study: Study, name: str) -> str:
    """Why a run has no row."""
    if why := study.damaged.get(f"runs/{name}/records.jsonl"):
        return why
    directory = study.run_directory(name)
    records = directory / "records.jsonl"
    if not directory.is_dir():
        return "it has not begun"
    if not records.is_file():
        return "it has no records.jsonl"
    return (
        "its records.jsonl is empty"
        if not records.stat().st_size
        else "its records.jsonl is cut short in the first row"
    )


def left_out(study: Study, points: Points) -> list[str]:
    """The parts of a study that enter no law, in sentences."""
    runs, readings = lost(study), points.excluded
    found = []
    if runs:
        told = "; ".join(f"{name}: {why}" for name, why in runs.items())
        found.append(
            f"{len(runs)} of {len(runs.keys() | {run['run'] for run in study.runs})} runs left out: {told}"
        )
    if readings:
        told = "; ".join(f"{one['run']} at {one['budget_flops']:.3g}: {one['reason']}" for one in readings)
        found.append(f"{len(readings)} readings left out: {told}")
    if study.torn:
        found.append(f"the last line is cut short, and left out, in {', '.join(study.torn)}")
    return found + [f"{file} is left out: {why}" for file, why in unread(study).items()]


def unread(study: Study) -> dict[str, str]:
    """Damaged files of a study other than the records of its runs, which ``lost`` tells of; and why."""
    return {file: why for file, why in study.damaged.items() if not file.endswith("records.jsonl")}
