"""The metrics of docs/adding.md, outside the package: measured, compared, and refused where they lack something."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from dit.errors import InputError
from dit.evaluation import catalogue
from dit.evaluation.measure import compare
from dit.evaluation.measured import Measured
from dit.evaluation.statistics import Statistics

ADDING = Path(__file__).parents[2] / "docs" / "adding.md"


@pytest.fixture
def names():
    before = dict(catalogue.METRICS)
    (code,) = re.findall(r"```python\n(.*?)```", ADDING.read_text().split("## A metric")[1], re.S)
    exec(compile(code, str(ADDING), "exec"), {})
    yield [name for name in catalogue.METRICS if name not in before]
    for name in [name for name in catalogue.METRICS if name not in before]:
        del catalogue.METRICS[name]


def measured(features: np.ndarray, *, kept: bool = True) -> Measured:
    stats = Statistics(features.shape[1], {})
    stats.update(torch.from_numpy(features))
    return Measured(stats, features=features if kept else None)


def test_rows_of_the_table_are_metrics(names):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 3)), rng.normal(1, 1, size=(60, 3))
    found = compare(measured(a), measured(b), [*names, "fd"])
    assert names == ["mean", "nearest"]
    assert found["mean_distance"] == pytest.approx(np.linalg.norm(a.mean(0) - b.mean(0)), rel=1e-6)
    among = cdist(a, a) + np.diag(np.full(40, np.inf))
    assert found["nearest_share"] == pytest.approx(np.mean(cdist(a, b).min(1) < among.min(1)))
    assert {"frechet_distance", "mean_distance", "nearest_share"} == set(found)
    with pytest.raises(InputError, match=r"nearest.*features kept"):
        compare(measured(a), measured(b, kept=False), names)
    with pytest.raises(InputError, match="at least 10 images"):
        catalogue.check_count(names, 9)
    assert catalogue.that_read("features", names, of="reference") == ["nearest"]
