"""Everything of a sample is on its device: made on ``meta``, where there are no values and the CPU is elsewhere."""

from pathlib import Path

import hydra
import pytest
import torch

from dit.condition import Classes, labelled
from dit.config.instantiation import config_dir, instantiate
from dit.diffusion.sampling import sample
from dit.domain import Domain
from dit.network.dit import DiT
from dit.network.presets import ladder

SOLVERS = sorted(path.stem for path in Path(config_dir(), "solver").glob("*.yaml"))


def test_meta_is_another_device_than_the_cpu():
    with pytest.raises(RuntimeError, match="device"):
        torch.lerp(torch.empty(2, device="meta"), torch.zeros(2), torch.ones(2))


@pytest.mark.parametrize(
    "solver", [name for name in SOLVERS if name not in ("dopri5", "unmask")]
)  # the one chooses its steps by values, the other draws tokens
@pytest.mark.parametrize(
    ("objective", "grid"),
    [("rectified_flow", "uniform"), ("ddpm_learned_variance", "respaced"), ("edm", "karras")],
)
def test_samples_are_made_on_their_device_without_asking_for_a_value(solver, objective, grid):
    overrides = [f"objective={objective}", f"solver={solver}", f"grid={grid}", "grid.n_steps=5"]
    with hydra.initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = hydra.compose("bench", overrides)
    made = instantiate(cfg.objective)
    with torch.device("meta"):
        network = DiT(
            ladder(16, aspect=16, head_dim=16),
            Domain(3, (8, 8)),
            Classes(10),
            made.process.out_channels(Domain(3, (8, 8))),
        )
    guided = instantiate(cfg.guidance)(made.process.denoiser(network))
    labels = labelled(torch.zeros(4, dtype=torch.int64, device="meta"))
    found = sample(
        guided, instantiate(cfg.solver), instantiate(cfg.grid), (3, 8, 8), range(4), labels, "meta"
    )
    assert found.x0.shape == (4, 3, 8, 8) and found.x0.is_meta
