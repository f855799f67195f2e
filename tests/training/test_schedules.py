import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from dit.config.instantiation import config_dir, instantiate
from dit.errors import InputError
from dit.training.schedules import Constant, Cosine, WarmupStableDecay, warm_up

BATCH, STEPS, WARMUP_STEPS = 64, 100, 10
TOTAL, WARMUP = BATCH * STEPS, BATCH * WARMUP_STEPS


def factors(schedule):
    return [schedule.factor(BATCH * (step + 1), TOTAL, WARMUP) for step in range(STEPS)]


def test_warm_up_is_linear_and_ends():
    assert [warm_up(n, 100) for n in (0, 50, 100, 500)] == [0, 0.5, 1, 1]
    assert warm_up(64, 0) == 1


def test_constant_is_the_warm_up_alone_at_any_end():
    for images in (1, 63, 64, 640, 12345):
        assert Constant().factor(images, TOTAL, WARMUP) == warm_up(images, WARMUP)
        assert Constant().factor(images, 10 * TOTAL, WARMUP) == warm_up(images, WARMUP)


def test_cosine_is_torchs():
    """torch counts the steps after the warm-up; its own formula is recursive."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS - WARMUP_STEPS, eta_min=0.1)
    found = factors(Cosine(final_share=0.1))
    assert found[:WARMUP_STEPS] == pytest.approx([(step + 1) / WARMUP_STEPS for step in range(WARMUP_STEPS)])
    for value in found[WARMUP_STEPS:]:
        optimizer.step()
        reference.step()
        assert value == pytest.approx(reference.get_last_lr()[0], abs=1e-12)


@pytest.mark.parametrize(
    ("shape", "decay"), [("linear", lambda x: 1 - x), ("sqrt", lambda x: 1 - math.sqrt(x))]
)
@pytest.mark.parametrize("length", [{"cooldown_share": 0.2}, {"cooldown_images": 20 * BATCH}])
def test_wsd_is_the_published_function_of_the_step(shape, decay, length):
    """Hägele et al., equation 1: n / N_warmup, then 1, then f((n - (N - N_decay)) / N_decay)."""
    found = factors(WarmupStableDecay(shape=shape, **length))
    for n, value in enumerate(found, start=1):
        expected = n / 10 if n < 10 else 1.0 if n <= 80 else decay((n - 80) / 20)
        assert value == pytest.approx(expected, abs=1e-9), n


def test_runs_of_any_end_are_the_same_up_to_where_they_may_branch():
    """A cool-down branch: the short run's learning rates are the long run's until ``shared_until``."""
    for schedule in (
        Constant(),
        WarmupStableDecay(cooldown_share=0.2),
        WarmupStableDecay(cooldown_images=500),
    ):
        branch = schedule.shared_until(TOTAL)
        for images in range(BATCH, branch + 1, BATCH):
            assert schedule.factor(images, TOTAL, WARMUP) == schedule.factor(images, 7 * TOTAL, WARMUP)
        if branch < TOTAL:
            assert schedule.factor(branch + BATCH, TOTAL, WARMUP) < 1
    assert Cosine().shared_until(TOTAL) == 0


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: WarmupStableDecay(), "schedule:"),
        (lambda: WarmupStableDecay(cooldown_images=5, cooldown_share=0.1), "schedule:"),
        (lambda: WarmupStableDecay(cooldown_share=1.5), r"schedule\.cooldown_share"),
        (lambda: WarmupStableDecay(cooldown_images=0), r"schedule\.cooldown_images"),
        (lambda: WarmupStableDecay(cooldown_share=0.1, shape="cubic"), r"schedule\.shape"),
        (lambda: Cosine(final_share=float("nan")), r"schedule\.final_share"),
        (lambda: WarmupStableDecay(cooldown_images=1000).check(1200, 300), "schedule:"),
        (lambda: Cosine().check(640, 640), "warmup_images"),
    ],
)
def test_what_makes_no_schedule_is_refused(make, key):
    with pytest.raises(InputError, match=key):
        make()


@pytest.mark.parametrize("name", sorted(path.name for path in Path(config_dir(), "schedule").iterdir()))
def test_every_file_of_the_group_makes_a_schedule(name):
    schedule = instantiate(OmegaConf.load(Path(config_dir()) / "schedule" / name))
    schedule.check(TOTAL, WARMUP)
    assert schedule.factor(WARMUP, TOTAL, WARMUP) == 1
