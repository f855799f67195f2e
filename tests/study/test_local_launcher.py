"""The worker processes of a study: a job that is handed out after a stop does not begin, and errors come back whole."""

import pickle

import pytest
from hydra.core.utils import JobStatus
from hydra.errors import OverrideParseException

from dit import signals
from dit.errors import InputError
from hydra_plugins.dit_local import launcher


@pytest.fixture(autouse=True)
def _handlers_stay(monkeypatch):
    monkeypatch.setattr(signals, "listen", lambda **_: None)


def test_a_job_that_waits_in_a_worker_does_not_begin_after_a_stop(monkeypatch):
    """A pool hands out more jobs than it has workers: Ctrl-C would begin those in its queue."""
    monkeypatch.setattr(signals, "_received", [2])
    monkeypatch.setattr(launcher, "_train", lambda *_: pytest.fail("it began"))
    assert launcher._run(0, [], None, None, None).status is JobStatus.UNKNOWN


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OverrideParseException("run_dir=a(", "LexerNoViableAltException: a("),
            "LexerNoViableAltException: a(",
        ),
        (InputError("optimizer.lr", -1, "more"), "optimizer.lr"),
        (OSError(28, "No space left on device", "x"), "No space left on device: x"),
    ],
)
def test_the_message_of_a_job_reaches_its_driver(error, said, monkeypatch):
    """As a value that pickles: one that does not ends the pool with "terminated abruptly", and every job of it."""

    def fail(*_):
        raise error

    monkeypatch.setattr(launcher, "_train", fail)
    result = pickle.loads(pickle.dumps(launcher._run(0, [], None, None, None)))
    assert result.status is JobStatus.FAILED and said in str(result._return_value)
