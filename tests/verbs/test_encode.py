"""``dit encode``: the device of each process."""

import pytest
import torch

from dit.errors import InputError
from dit.verbs.encode import _device


@pytest.mark.parametrize(
    ("asked", "local_rank", "given"), [("cuda", 1, "cuda:1"), ("cuda", 3, "cuda:1"), ("cuda:0", 1, "cuda:0")]
)
def test_processes_of_a_node_take_its_gpus_in_turn(asked, local_rank, given, monkeypatch):
    """Four processes, two GPUs; a GPU that is named is taken."""
    for name, value in (("RANK", local_rank), ("LOCAL_RANK", local_rank), ("WORLD_SIZE", 4)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", lambda *_, device: None)
    assert _device(asked) == given


def test_a_device_that_is_not_there_is_one_message():
    for name in ("gpu", "cuda:99", None):
        with pytest.raises(InputError, match="device: "):
            _device(name)
