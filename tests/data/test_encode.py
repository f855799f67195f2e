import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from dit.data.autoencoder import Identity, TrainedKL
from dit.data.encode import encode_dataset, share_of_this_process
from dit.data.images import Digits
from dit.data.manifest import file_sha256, read_manifest
from dit.data.split import Stratified
from dit.errors import InputError
from tests.data.conftest import TINY_KL, encode_digits

CONF = Path(__file__).parents[2] / "conf"


def contents(directory: Path) -> dict[str, str]:
    return {
        str(p.relative_to(directory)): file_sha256(p) for p in sorted(directory.rglob("*")) if p.is_file()
    }


def test_same_bits_again_at_any_number_of_threads(tiny, tmp_path):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if before > 1 else 2)
        threads = torch.get_num_threads()
        torch.manual_seed(1)
        encode_digits(tmp_path / "again", TINY_KL, image_size=16, flip=True, dtype="bfloat16")
        assert torch.get_num_threads() == threads
        assert torch.initial_seed() == 1
    finally:
        torch.set_num_threads(before)
    assert contents(tmp_path / "again") == contents(tiny)


def test_finished_work_is_not_repeated(tiny):
    reports = []
    before = contents(tiny)
    options = {"image_size": 16, "flip": True, "dtype": "bfloat16"}
    done = encode_digits(tiny, TINY_KL, progress=lambda *a: reports.append(a), **options)
    assert done.complete and not done.fresh and not reports
    assert contents(tiny) == before


def test_another_configuration_in_the_same_directory_is_refused(tiny):
    with pytest.raises(InputError, match=r"flip: True -> False.*another data.directory"):
        encode_digits(tiny, TINY_KL, image_size=16, dtype="bfloat16")


def test_foreign_directory_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(InputError, match="absent or empty"):
        encode_digits(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "important"


def test_unwritable_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="writable"):
        encode_digits(tmp_path / "file" / "latents")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_any_number_of_processes_gives_the_same_directory(pixels, tmp_path, order):
    directory = tmp_path / "latents"
    ends = [encode_digits(directory, rank=rank, world_size=3) for rank in order]
    assert [end.complete for end in ends] == [False, False, True]
    assert ends[0].blocks_missing == (2 if order[0] == 0 else 3)
    assert contents(directory) == contents(pixels)
    assert list(tmp_path.iterdir()) == [directory]


class Stopped(Exception):
    pass


@pytest.mark.parametrize("reports", [1, 3, 9, 10])
def test_stopped_again_and_again(pixels, tmp_path, reports):
    """A block takes nine reports: with fewer, no attempt gets anywhere; with more, each gets further."""
    directory = tmp_path / "latents"

    def stop(*report):
        nonlocal left
        left -= 1
        if not left:
            raise Stopped

    for _ in range(6):
        left = reports
        try:
            encode_digits(directory, progress=stop)
        except Stopped:
            assert not directory.exists()
    if reports < 9:
        assert not directory.exists()
        encode_digits(directory)
    assert contents(directory) == contents(pixels)


SCRIPT = """
import os, signal, sys
from pathlib import Path
from tests.data.conftest import TINY_KL, encode_digits
def die(stage, done, total, detail):
    if stage == sys.argv[2] and done >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
encode_digits(Path(sys.argv[1]), TINY_KL, image_size=16, flip=True, dtype="bfloat16", progress=die)
"""


def test_killed_twice_and_started_again(tiny, tmp_path):
    """kill -9 while the autoencoder trains, then between two blocks."""
    directory, root = tmp_path / "latents", Path(__file__).parents[2]
    for stage, done in (("autoencoder", 3), ("encode", 600)):
        command = [sys.executable, "-c", SCRIPT, str(directory), stage, str(done)]
        ended = subprocess.run(command, cwd=root, env=os.environ | {"PYTHONPATH": str(root)})
        assert ended.returncode == -signal.SIGKILL
        assert not directory.exists()
    encode_digits(directory, TINY_KL, image_size=16, flip=True, dtype="bfloat16")
    assert contents(directory) == contents(tiny)


@pytest.mark.parametrize(
    "field", ["widths", "latent_channels", "kl_weight", "learning_rate", "batch_size", "steps"]
)
@pytest.mark.parametrize("value", [float("nan"), -1, "a", True])
def test_autoencoder_refuses_bad_values(field, value):
    values = {
        "widths": [16, 32],
        "latent_channels": 4,
        "kl_weight": 1e-3,
        "learning_rate": 1e-3,
        "batch_size": 8,
        "steps": 10,
    }
    with pytest.raises(InputError, match=f"autoencoder.{field}"):
        TrainedKL(**values | {field: [value] if field == "widths" else value})


def test_image_size_must_fit_the_autoencoder(tmp_path):
    with pytest.raises(InputError, match=r"data.image_size.*multiple of 2"):
        encode_digits(tmp_path / "latents", TINY_KL, image_size=17)


@pytest.mark.parametrize(
    "options", [{"dtype": "float16"}, {"batch_size": 0}, {"rank": 1}, {"image_size": 32.0}]
)
def test_options_are_checked(tmp_path, options):
    with pytest.raises(InputError):
        encode_digits(tmp_path / "latents", **options)


@pytest.mark.slow
def test_the_autoencoder_of_the_digits_study(tmp_path):
    """The study's own configuration: at least 20 dB on held-out digits, within 90 s on two cores."""
    spec = {
        k: v for k, v in yaml.safe_load((CONF / "autoencoder/digits_kl.yaml").read_text())["spec"].items()
    }
    assert spec.pop("_target_") == "dit.data.autoencoder.TrainedKL"
    began = time.monotonic()
    encode_dataset(
        tmp_path / "latents", Digits(), TrainedKL(**spec), Stratified(297), name="digits", image_size=32
    )
    assert time.monotonic() - began < 90
    manifest = read_manifest(tmp_path / "latents")
    assert manifest["shape"] == [4, 8, 8]
    assert manifest["autoencoder"]["reconstruction_psnr_db"] > 28


def test_identity_shape():
    assert Identity().latent_shape(32) == (3, 32, 32)
    assert TINY_KL.latent_shape(32) == (2, 16, 16)


def test_share_of_this_process():
    assert share_of_this_process({}) == (0, 1)
    assert share_of_this_process({"RANK": "3", "WORLD_SIZE": "8", "SLURM_PROCID": "0"}) == (3, 8)
    step = {"SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "4"}
    assert share_of_this_process(step) == (1, 4)
    batch_script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}  # which calls no srun
    assert share_of_this_process(batch_script) == (0, 1)
    # sbatch --array=2-10:4, two tasks in each: tasks 2, 6, 10 give shares 0..5 of 6
    array = {"SLURM_ARRAY_TASK_MIN": "2", "SLURM_ARRAY_TASK_STEP": "4", "SLURM_ARRAY_TASK_COUNT": "3"}
    shares = [
        share_of_this_process(
            array | step | {"SLURM_ARRAY_TASK_ID": task, "SLURM_PROCID": rank, "SLURM_STEP_NUM_TASKS": "2"}
        )
        for task in ("2", "6", "10")
        for rank in ("0", "1")
    ]
    assert shares == [(share, 6) for share in range(6)]
