"""Requests to stop, as a flag.

A handler that does more than set a flag deadlocks in collectives (see docs/decisions), so this is all it does; the
trainer looks at the flag between steps. Standard library only: it is installed before the heavy imports.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading

from dit.errors import EXIT_RESUMABLE

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
NOW = signal.SIGQUIT  # what a second Ctrl-C means, from a parent to its workers and ranks; or Ctrl-backslash
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_received: list[int] = []


class Interrupted(BaseException):
    """A second Ctrl-C: stop now, without a checkpoint.

    No KeyboardInterrupt, which Lightning turns into exit code 1, and no Exception, which somebody would catch.
    """


def _remember(number: int, _frame: object) -> None:
    _received.append(number)


def _remember_or_interrupt(number: int, _frame: object) -> None:
    _received.append(number)
    if number == signal.SIGINT and _received.count(number) == 2:
        raise Interrupted
    if number == signal.SIGINT and _received.count(number) > 2:
        os._exit(EXIT_RESUMABLE)  # not even what the second one left to do


def _interrupt(_number: int, _frame: object) -> None:
    raise Interrupted


def listen(*, interrupted: bool = True) -> None:
    """Turns SIGTERM, SIGINT, SIGUSR1 and SIGUSR2 into a flag for this process; for its main thread alone to call.

    Args:
        interrupted: whether a second SIGINT (or ``NOW``) raises Interrupted. Not in a worker that has nothing to do.
    """
    if not _in_main_thread():
        return  # a job of a launcher that runs it beside its driver, which listens already
    for number in STOP_SIGNALS:
        signal.signal(number, _remember_or_interrupt if interrupted else _remember)
    signal.signal(NOW, _interrupt if interrupted else signal.SIG_IGN)


def leave_at_next() -> None:
    """Lets a further Ctrl-C end the process at once, without a message, since it has said that it stops."""
    if _in_main_thread():
        signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_RESUMABLE))


def ignore() -> None:
    """Lets no signal change the exit code any more, while the interpreter takes itself apart.

    It has given back its handlers by then: a second Ctrl-C that came a moment late would end a run that has stopped in
    order as if it had been killed.
    """
    for number in (*STOP_SIGNALS, NOW):
        signal.signal(number, signal.SIG_IGN)


def die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent ends, however it ends (Linux): no orphan goes on writing.

    Args:
        parent: its id. The thread that started this process must live as long as the parent: the kernel means that one.
    """
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it ended before


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


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
    assert parent is not None and parent.pid is not None, "a process of multiprocessing"
    if os.getppid() == parent.pid:  # not a fork server's
        die_with(parent.pid)
    if (
        not parent.is_alive()
    ):  # it ended while this process started, and no signal of the kernel will come any more
        os._exit(1)

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
