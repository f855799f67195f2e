"""The solver of docs/adding.md, outside the package: of order 2 on a Gaussian whose flow is known, two calls a step."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from dit.diffusion import grids
from dit.diffusion.paths import VP, Cosine, Linear
from dit.diffusion.sampling import sample
from tests.diffusion.gaussian import Gaussian, between, measured_order

ADDING = Path(__file__).parents[2] / "docs" / "adding.md"


@pytest.fixture
def midpoint() -> Any:
    (code,) = re.findall(
        r"```python\n(.*?)```", ADDING.read_text().split("## A solver")[1].split("\n## ")[0], re.S
    )
    namespace: dict[str, Any] = {}
    exec(compile(code, str(ADDING), "exec"), namespace)
    return namespace["midpoint"]


@pytest.mark.parametrize("path", [Cosine(), VP()], ids=repr)
def test_its_order_is_two(midpoint, path):
    denoiser, x, errors = Gaussian(path), torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None], []
    for steps in (20, 40, 80):
        ts = between(path, -3, 1, steps, in_log_snr=False)
        wanted = denoiser.flow(x, float(ts[0]), float(ts[-1]))
        errors.append(float((midpoint(denoiser, x, ts) - wanted).abs().max()))
    assert measured_order(errors) == pytest.approx(2, abs=0.15), errors


def test_it_samples_with_two_calls_a_step_but_the_last(midpoint):
    found = sample(Gaussian(Linear()), midpoint, partial(grids.uniform, n_steps=20), (4,), range(500))
    assert found.nfe == 2 * 19 + 1
    assert abs(float(found.x0.mean()) - 0.3) < 0.1 and abs(float(found.x0.std()) - 0.6) < 0.1
