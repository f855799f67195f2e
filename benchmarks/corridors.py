"""Files and functions of ``dit`` that a piece of work passes: a batch from disk to loss, records to a report.

    python -m benchmarks.corridors [batch|report] [--names]

Counted are functions with a name that are entered while the work runs, once each, and the files they stand in; not
what their modules do when they are imported. The batch is of digits in pixel space, 8 x 8, by the default objective and
network of ``dit train``. The report is of ``experiments/digits``, with 100 bootstrap draws.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import dit

PACKAGE = Path(dit.__file__).parent
STUDY = PACKAGE.parent / "experiments" / "digits" / "records.jsonl"


def passed(work: Callable[[], Any]) -> dict[str, set[tuple[str, int]]]:
    """The files that work passes, each with its functions (name, first line)."""
    found: dict[str, set[tuple[str, int]]] = defaultdict(set)

    inside = f"{PACKAGE}/"

    def note(frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(inside) and not code.co_name.startswith("<"):
            found[code.co_filename.removeprefix(inside)].add((code.co_name, code.co_firstlineno))

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return dict(found)


def batch(folder: Path) -> dict[str, set[tuple[str, int]]]:
    """One training batch, from its latents' shard to its loss."""
    import hydra

    from dit.config import job as job_config
    from dit.config.instantiation import config_dir
    from dit.config.parts import Parts
    from dit.launch import World
    from dit.training.batches import Batches

    data = ["autoencoder=identity", "data.image_size=8", f"data.directory={folder}/latents"]
    subprocess.run([sys.executable, "-m", "dit", "encode", *data], check=True, capture_output=True)
    network = ["network.width=32", "network.aspect=16", "network.head_dim=16"]
    with hydra.initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = hydra.compose("train", [*data, *network, "duration.images=null", "duration.steps=2"])
    job = job_config.training_job(Parts(cfg), "corridor", folder, World())
    module = job.module()
    module.configure_model()
    batches = Batches(job.latents, module.streams, 0, 2)

    def work(step: int) -> None:
        for part in module.method.parts(batches.batch(step), module.network.kind, module.streams, 1):
            module.method.loss(module.denoiser, part)

    work(0)  # what is done once is no part of a step
    return passed(lambda: work(1))


def report(folder: Path) -> dict[str, set[tuple[str, int]]]:
    """The records of the digits study to its page."""
    from dit.report.page import write_report

    study = folder / "study"
    study.mkdir()
    shutil.copy(STUDY, study)
    return passed(lambda: write_report(study, folder / "report", bootstrap=100))


def main() -> None:
    """Prints both, or those that are named."""
    works = {"batch": batch, "report": report}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", nargs="?", choices=list(works), help="this one alone")
    parser.add_argument("--names", action="store_true", help="with the names")
    arguments = parser.parse_args()
    for name in [arguments.work] if arguments.work else works:
        with tempfile.TemporaryDirectory() as folder:
            found = works[name](Path(folder))
        print(f"{name}: {len(found)} files, {sum(map(len, found.values()))} functions")
        for file, functions in sorted(found.items()) if arguments.names else ():
            print(f"  {file}: {', '.join(sorted(name for name, _ in functions))}")


if __name__ == "__main__":
    main()
