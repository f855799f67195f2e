"""The loop of a study: launch what is missing, wait until nobody has it any more, look again.

What is missing is decided by the ledger alone. A launcher's answer is used for its error messages, not for the state of
runs: submitit, for one, gives no answer at all once a job has died.
"""

import logging
import shlex
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.utils import JobStatus

from dit import signals
from dit.errors import InputError, RunError, Stopped
from dit.study.launches import Launch
from dit.study.ledger import Entry, Ledger
from dit.study.watch import Watch

log = logging.getLogger("dit")

MOST_JOBS = 1000  # in one launch: SLURM's arrays are limited (MaxArraySize, 1001 by default)


@dataclass(frozen=True)
class Launcher:
    """A Hydra launcher.

    Attributes:
        launch: (name of the launch, overrides of each job) -> Hydra's JobReturn of each; blocks until all ended.
        slurm: whether the jobs are SLURM's and bear the launch's name.
        survives: whether the jobs go on when this process ends.
    """

    launch: Callable[[str, Sequence[Sequence[str]]], Sequence[Any]]
    slurm: bool
    survives: bool


class Driver:
    """Brings the runs of a study to their end.

    A run that failed, or that ended without having got further, has used up one of its 1 + ``retries`` attempts; one
    that was interrupted on its way is continued as often as it takes.

    Args:
        study: its name.
        ledger: where the runs stand.
        launcher: what runs them.
        jobs: the overrides of ``dit train`` for each run.
        retries: how often a failed run is tried again.
    """

    def __init__(
        self, study: str, ledger: Ledger, launcher: Launcher, jobs: Mapping[str, Sequence[str]], retries: int
    ) -> None:
        self.study, self.ledger, self.launcher, self.jobs = study, ledger, launcher, jobs
        self.retries = retries
        self.errors: dict[str, BaseException] = {}

    def run(self) -> dict[str, str]:
        """Runs all there is to do; the runs that are not done in the end, and why.

        Raises:
            Stopped: on request.
            InputError: a mistake that trying again would not mend.
        """
        used: Counter[str] = Counter()
        with Watch() as watch:
            while True:
                entries = self._wait_for_others(watch)
                missing = [entry for entry in entries if entry.state != "done"]
                waiting = {entry.name for entry in missing}  # a branch waits for the run that it begins from
                ready = [entry for entry in missing if entry.plan.get("branch_of") not in waiting]
                again = [entry for entry in ready if used[entry.name] <= self.retries]
                self._heed_stop(entries)
                if not again:
                    return {entry.name: self._reason(entry) for entry in missing}
                for entry in again:
                    if used[entry.name]:
                        log.warning("trying %s again: %s", entry.name, self._reason(entry))
                # longest first: the workers end together
                again.sort(key=lambda entry: -entry.flops)
                before = {entry.name: entry.images_seen for entry in again[:MOST_JOBS]}
                self._launch(list(before), watch)
                for entry in self._wait_for_others(watch):
                    stuck = entry.state == "failed" or entry.images_seen <= before.get(entry.name, -1)
                    if entry.name in before and entry.state != "done" and stuck:
                        used[entry.name] += 1

    def _wait_for_others(self, watch: Watch) -> list[Entry]:
        """The runs, once nobody has any of them: jobs of a driver that is gone, or that outlived their launch."""
        self.ledger.forget_dead_launches()
        pause, said = _Pause(), False
        while True:
            entries = self.ledger.entries()
            held = [entry.name for entry in entries if entry.held]
            if not held:
                return entries
            if not said:
                said = True
                log.info("waiting for %d runs that were launched before: %s", len(held), ", ".join(held))
            watch.show(entries)
            self._heed_stop(entries)
            pause()

    def _launch(self, names: list[str], watch: Watch) -> None:
        """Launches runs, and waits until the launcher answers or, where that is later, none of them is left to it."""
        launch = self.ledger.launches.begin(self.study, names, self.launcher.slurm)
        answer = _Answer(lambda: self.launcher.launch(launch.name, [self.jobs[name] for name in names]))
        pause, begun = _Pause(), False
        while not answer.wait(pause.seconds if self.launcher.survives else 1.0):
            entries = self.ledger.entries()
            watch.show(entries)
            if self.launcher.survives:
                self._heed_stop(entries)
            held = any(entry.held for entry in entries)
            if self.launcher.slurm and begun and not held:
                break  # submitit would notice minutes later that a job has died
            begun = begun or held
            pause.lengthen()
        if not self.launcher.slurm:
            self.ledger.launches.end(launch)
        if signals.stop_requested():
            self._heed_stop(self.ledger.entries())
        self._take(answer, launch, begun)

    def _take(self, answer: "_Answer", launch: Launch, begun: bool) -> None:
        """Keeps the errors of jobs that said theirs; one that all runs would make ends the study."""
        error = answer.error
        if error is not None:
            if isinstance(error, (InputError, KeyboardInterrupt)):
                raise error
            wrote = (entry.status.get("heartbeat", 0) >= launch.begun for entry in self.ledger.entries())
            if not begun and not any(wrote):
                self.ledger.launches.end(launch)
                raise RunError(f"the launcher could not start the runs: {error}") from error
            log.warning("the launcher lost a job: %s", str(error).partition("\n")[0])
        for name, result in zip(launch.runs, answer.results, strict=False):
            failure = result._return_value if result.status is JobStatus.FAILED else None
            if (
                isinstance(failure, InputError) and failure.key != "run_dir"
            ):  # that one may be another process's
                raise failure
            if failure is not None:
                self.errors[name] = failure

    def _heed_stop(self, entries: list[Entry]) -> None:
        if not signals.stop_requested():
            return
        command = shlex.join([*sys.argv[0].split(), *sys.argv[1:]])
        held = [entry.name for entry in entries if entry.held]
        if not held:
            raise Stopped(f"stopped on request; this continues the study: {command}")
        names = ",".join(launch.name for launch in self.ledger.launches.all() if launch.slurm)
        cancel = f" (scancel --name={names} would end them)" if names else ""
        raise Stopped(
            f"the driver stopped on request; {len(held)} runs are left queued or running{cancel}; "
            f"this continues the study: {command}"
        )

    def _reason(self, entry: Entry) -> str:
        error = self.errors.get(entry.name)
        return str(error) if error is not None and entry.state != "failed" else entry.reason


class _Answer:
    """What a blocking call returns or raises, from a thread that may be left behind."""

    def __init__(self, call: Callable[[], Sequence[Any]]) -> None:
        self.results: Sequence[Any] = ()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[], Sequence[Any]]) -> None:
        try:
            self.results = call()
        except BaseException as error:
            self.error = error

    def wait(self, seconds: float) -> bool:
        """Whether the call has ended, after at most so long."""
        self._thread.join(seconds)
        return not self._thread.is_alive()


class _Pause:
    """Between looks at SLURM's queue: a tenth of the time waited so far, 2 to 30 seconds."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self.seconds = 2.0

    def lengthen(self) -> None:
        """Chooses the next pause."""
        self.seconds = min(30.0, max(2.0, (time.monotonic() - self._begun) / 10))

    def __call__(self) -> None:
        """Waits, but no longer than until somebody asks to stop."""
        end = time.monotonic() + self.seconds
        while time.monotonic() < end and not signals.stop_requested():
            time.sleep(0.2)
        self.lengthen()
