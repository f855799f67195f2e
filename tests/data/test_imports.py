"""Import time is a feature: a plan reads the shape and classes of its data without torch."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (
            "images split manifest autoencoder sources.folder sources.webdataset sources.parquet",
            ["torch", "torchvision", "diffusers", "sklearn", "pyarrow", "PIL"],
        ),
        ("latents loader draws codec encode", ["torchvision", "diffusers", "sklearn", "pyarrow", "PIL"]),
    ],
)
def test_importing_is_light(modules, absent):
    lines = "\n".join(f"import dit.data.{module}" for module in modules.split())
    check = f"import sys\n{lines}\nprint([m for m in {absent} if m in sys.modules])"
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", check], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
