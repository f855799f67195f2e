"""Fixtures shared by all tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Tests start many processes on few cores, and some fork: OpenMP's threads do not survive that.
os.environ["OMP_NUM_THREADS"] = "1"

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
# The smallest real thing: every part of a run, in seconds.
TINY = [
    "autoencoder=identity",
    "data.image_size=8",
    "network.width=16",
    "network.aspect=16",
    "network.head_dim=16",
    "batch_size=32",
    "warmup_images=64",
    "validation.n_draws=64",
    "log_every_images=64",
    "checkpoint_every_images=128",
]
# The same without its data: of a benchmark that makes its own.
SYNTHETIC = [
    *(word for word in TINY if not word.startswith(("autoencoder", "data."))),
    "latent_shape=[3,8,8]",
    "num_classes=10",
]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the checkout; users do not have it."""
    if not SHARED.is_dir():
        pytest.skip(f"no reference data beside the checkout ({SHARED.name}/ is absent)")
    return SHARED


def dit(*arguments: str, cwd: Path, check: int | None = None, **kwargs) -> subprocess.CompletedProcess[str]:
    """Runs the command line as a user would; ``check`` is the exit code expected."""
    command = [sys.executable, "-m", "dit", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, **kwargs)
    assert check is None or found.returncode == check, f"{arguments}: {found.returncode}\n{found.stderr}"
    return found


@pytest.fixture(scope="session")
def tiny_latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits at 8x8, in pixel space: encoded once for all tests."""
    directory = tmp_path_factory.mktemp("latents") / "digits"
    settings = ["autoencoder=identity", "data.image_size=8", f"data.directory={directory}"]
    dit("encode", *settings, cwd=directory.parent, check=0)
    return directory
