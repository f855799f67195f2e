"""Requests to stop, as a flag.

A handler that does more than set a flag deadlocks in collectives (see docs/decisions), so this is all it does; the
trainer looks at the flag between steps. Standard library only: it is installed before the heavy imports.
"""

import multiprocessing
import os
import signal
import sys
import threading

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
_received: list[int] = []


def _remember(number: int, _frame: object) -> None:
    if number == signal.SIGINT and signal.SIGINT in _received:
        raise KeyboardInterrupt  # a second Ctrl-C means now
    _received.append(number)


def listen() -> None:
    """Turns SIGTERM, SIGINT, SIGUSR1 and SIGUSR2 into a flag for this process; for its main thread alone to call."""
    if threading.current_thread() is not threading.main_thread():
        return  # a job of a launcher that runs it beside its driver, which listens already
    for number in STOP_SIGNALS:
        signal.signal(number, _remember)


def obey_parent_alone() -> None:
    """For a process that prepares data: stop signals are its parent's business, but SIGTERM from that one ends it.

    A launcher sends them to every process of a job, and a parent whose workers die fails before it can save (Linux).
    """
    if sys.platform != "linux":
        return
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: None)  # where a library's thread does not block it
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    parent = multiprocessing.parent_process()
    assert parent is not None, "a process of multiprocessing"

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def received() -> tuple[int, ...]:
    """The stop signals received so far, in order."""
    return tuple(_received)


def stop_requested() -> str | None:
    """The name of the first stop signal received, or None."""
    return signal.Signals(_received[0]).name if _received else None
