import inspect
import re
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import get_object, instantiate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dit.condition import labelled
from dit.diffusion import grids, solvers
from dit.diffusion.guidance import Autoguidance, Classifier, ClassifierFree, NegativeClass, unguided
from dit.diffusion.objective import Objective
from dit.diffusion.paths import VE, VP, Discrete, Linear
from dit.diffusion.process import Gaussian as Process
from dit.diffusion.sampling import NoiseStream, counted, first_time, rehearse, sample
from dit.diffusion.targets import Data, Karras, Noise, Score, Velocity
from dit.diffusion.weights import EDM
from dit.diffusion.weights import Uniform as Plain
from dit.errors import InputError
from tests.diffusion.gaussian import Gaussian, Plausible
from tests.diffusion.values import PATHS, SOLVERS, TARGETS, TIMES, WEIGHTS

ROOT = Path(__file__).parents[2]
SHAPE, SEEDS = (2, 4, 4), [3, 1, 4, 1, 5, 9, 2, 6]
CLASSES = labelled(torch.arange(8))
uniform_10 = partial(grids.uniform, n_steps=10)

GRIDS = {
    "uniform": lambda k: partial(grids.uniform, n_steps=k),
    "karras": lambda k: partial(grids.karras, n_steps=k),
    "log_snr": lambda k: partial(grids.log_snr, n_steps=k),
    "shifted": lambda k: partial(grids.shifted, n_steps=k, shift=3.0),
    "respaced": lambda k: partial(grids.respaced, n_steps=k),
}


def weight_for(name, target):
    """A weight of the table; EDM's for the target's own deviation, as the objective demands."""
    karras = isinstance(TARGETS[target], Karras)
    return EDM(TARGETS[target].sigma_data) if name == "edm" and karras else WEIGHTS[name]


GUIDANCE = {
    "none": unguided,
    "classifier_free": lambda d: ClassifierFree(d, 1.7),
    "first_channel": lambda d: ClassifierFree(d, 1.7, channels=1),
    "interval": lambda d: ClassifierFree(d, 1.7, interval=[-3.0, 3.0]),
    "negative_class": lambda d: NegativeClass(d, 1.5, negative_class=2),
    "autoguidance": lambda d: Autoguidance(d, Plausible(d.path, Data()).to(d.network.weight.dtype), 1.5),
    # what is left of a class at pure noise is nothing
    "classifier": lambda d: Classifier(
        d, lambda x, t: d.path.alpha(t)[:, None] * x.flatten(1)[:, :10].tanh(), 0.5
    ),
}


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    path=st.sampled_from(list(PATHS)),
    target=st.sampled_from(list(TARGETS)),
    solver=st.sampled_from(list(SOLVERS)),
    guidance=st.sampled_from(list(GUIDANCE)),
    grid=st.sampled_from(list(GRIDS)),
    steps=st.integers(5, 20),
    learned_variance=st.booleans(),
    times=st.sampled_from(list(TIMES)),
    weight=st.sampled_from(list(WEIGHTS)),
)
def test_any_valid_combination_trains_and_samples(
    path, target, solver, guidance, grid, steps, learned_variance, times, weight
):
    """No NaN, no surprise of shape, and a seed that means the same sample in a batch of 1 and of 8."""
    learned_variance = learned_variance and isinstance(PATHS[path], Discrete)
    if grid == "respaced" and not isinstance(PATHS[path], Discrete):
        grid = "uniform"
    # dopri5 chooses its steps for the batch as a whole, so that batches agree to its tolerance only
    adaptive = solver == "dopri5"
    dtype = torch.float64 if adaptive else torch.float32
    bound = partial(solvers.dopri5, rtol=1e-4, atol=1e-4) if adaptive else SOLVERS[solver]
    denoiser = GUIDANCE[guidance](
        Plausible(PATHS[path], TARGETS[target], learned_variance=learned_variance).to(dtype)
    )
    objective = Objective(
        PATHS[path], TARGETS[target], TIMES[times], weight_for(weight, target), learned_variance
    )
    x0, u = (
        NoiseStream(SEEDS, SHAPE, dtype=dtype)(),
        torch.rand(8, generator=torch.Generator().manual_seed(0)),
    )
    strong = Plausible(PATHS[path], TARGETS[target], learned_variance=learned_variance).to(dtype)
    loss = objective.loss(strong, x0, CLASSES, u, NoiseStream(range(8), SHAPE, dtype=dtype)()).loss
    assert loss.shape == (8,) and loss.isfinite().all()
    options = {
        "denoiser": denoiser,
        "solver": bound,
        "grid": GRIDS[grid](steps),
        "shape": SHAPE,
        "dtype": dtype,
    }
    whole = sample(seeds=SEEDS, condition=CLASSES, **options)
    assert whole.x0.shape == (8, *SHAPE) and whole.x0.dtype == dtype
    assert whole.x0.isfinite().all() and whole.x0.abs().max() < 100
    assert whole.nfe >= (1 if adaptive else steps)
    alone = sample(seeds=SEEDS[5:6], condition=CLASSES.part(slice(5, 6)), **options)
    if not adaptive:
        assert alone.nfe == whole.nfe
        torch.testing.assert_close(alone.x0, whole.x0[5:6], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_of_a_seed_is_the_same_at_any_batch_size_bit_for_bit(dtype):
    stream = NoiseStream(SEEDS, SHAPE, dtype=dtype)
    alone = [NoiseStream([seed], SHAPE, dtype=dtype) for seed in SEEDS]
    for _ in range(3):
        draw = stream()
        assert draw.shape == (8, *SHAPE) and draw.dtype == dtype
        assert torch.equal(draw, torch.cat([one() for one in alone]))


def test_noise_of_a_seed_is_the_same_in_any_dtype():
    assert torch.equal(NoiseStream(SEEDS, SHAPE)().double(), NoiseStream(SEEDS, SHAPE, dtype=torch.float64)())


def test_noise_is_that_of_torchs_generator():
    expected = torch.randn(SHAPE, generator=torch.Generator().manual_seed(9))
    assert torch.equal(NoiseStream([9], SHAPE)()[0], expected)


def test_noise_is_standard_normal_and_seeds_differ():
    noise = NoiseStream(range(64), (4, 16, 16))()
    assert float(noise.mean()) == pytest.approx(0, abs=4 / noise.numel() ** 0.5)
    assert float(noise.var()) == pytest.approx(1, abs=4 * (2 / noise.numel()) ** 0.5)
    assert float(torch.corrcoef(noise.flatten(1)).fill_diagonal_(0).abs().max()) < 5 / 1024**0.5


@pytest.mark.parametrize("seeds", [[], [-1], [1.0], [2**32], [True]])
def test_seeds_are_checked(seeds):
    with pytest.raises(InputError, match=r"^seeds: "):
        NoiseStream(seeds, SHAPE)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_samples_start_with_the_deviation_of_unit_data_and_draw_on_from_there(path):
    seen = []

    def solver(_denoiser, x, ts, _y, *, noise):
        seen.extend([x, ts, noise()])
        return x

    sample(Gaussian(path), solver, uniform_10, SHAPE, SEEDS)
    stream = NoiseStream(SEEDS, SHAPE)
    assert torch.equal(seen[1], uniform_10(path))
    start = float(path.deviation(seen[1][0]))
    assert torch.equal(seen[0], start * stream()) and torch.equal(seen[2], stream())
    assert start == pytest.approx(80.006249 if path == VE() else 1.0, rel=2e-5)


def test_nfe_is_network_evaluations_per_sample():
    denoiser = Plausible(Linear(), Velocity())
    expected = {"euler": 10, "heun": 19, "dpm_solver_3": 28, "dpmpp_2m": 10, "dpmpp_2s": 19, "ddpm": 10}
    for name, nfe in expected.items():
        assert sample(denoiser, SOLVERS[name], uniform_10, SHAPE, SEEDS, CLASSES).nfe == nfe, name
    assert not denoiser._forward_pre_hooks
    with counted(denoiser) as evaluations:
        denoiser(torch.zeros(8, *SHAPE), torch.full((8,), 0.5), CLASSES)
    assert (evaluations.total, evaluations.per_sample(8)) == (8, 1)


def test_samples_of_a_gaussian_have_its_mean_and_deviation():
    denoiser = Gaussian(VP(), mean=0.3, spread=0.6)
    x0 = sample(denoiser, solvers.ddpm, partial(grids.uniform, n_steps=200), (1, 8, 8), range(64)).x0
    assert float(x0.mean()) == pytest.approx(0.3, abs=4 * 0.6 / 64)
    assert float(x0.std()) == pytest.approx(0.6, rel=4 * 0.5**0.5 / 64 + 0.01)


def test_no_gradient_is_kept():
    assert not sample(
        Plausible(Linear(), Velocity()), solvers.euler, uniform_10, SHAPE, SEEDS, CLASSES
    ).x0.requires_grad


@pytest.mark.parametrize("target", [Noise(), Score()])
def test_targets_that_divide_by_alpha_start_a_thousandth_from_pure_noise(target):
    ts = uniform_10(Linear())
    moved = first_time(Plausible(Linear(), target), ts)
    assert float(moved[0]) == pytest.approx(1000 / 1001) and torch.equal(moved[1:], ts[1:])
    for path, other in (
        (Linear(), Velocity()),
        (Linear(), Data()),
        (VP(), target),
        (VE(), target),
        (Discrete(), target),
    ):
        ts = uniform_10(path)
        assert torch.equal(first_time(Plausible(path, other), ts), ts)
    with pytest.raises(InputError, match=r"grid.*second time below 0\.999"):
        first_time(Plausible(Linear(), target), grids.uniform(Linear(), 5000))


def test_inputs_are_checked():
    denoiser = Plausible(VE(), Karras())
    with pytest.raises(InputError, match=r"dtype: got torch.float16"):
        sample(denoiser, solvers.euler, uniform_10, SHAPE, SEEDS, CLASSES, dtype=torch.float16)
    with pytest.raises(InputError, match=r"label: .*one for each of the 8 samples"):
        sample(denoiser, solvers.euler, uniform_10, SHAPE, SEEDS, CLASSES.part(slice(2)))


@pytest.mark.parametrize(
    ("path", "solver", "grid", "key"),
    [
        (Linear(), partial(solvers.euler_maruyama, diffusion="all"), uniform_10, "solver.diffusion"),
        (Linear(), partial(solvers.euler_maruyama, diffusion="SBDM"), uniform_10, "solver.diffusion"),
        (Discrete(), partial(solvers.ddim, eta=2.0), uniform_10, "solver.eta"),
        (Linear(), solvers.euler, partial(grids.respaced, n_steps=10), "grid"),
        (Discrete(steps=50), solvers.ddpm, partial(grids.uniform, n_steps=51), "grid.n_steps"),
    ],
)
def test_a_rehearsal_refuses_what_sampling_would(path, solver, grid, key):
    with pytest.raises(InputError, match=rf"^{key}: "):
        rehearse(Process(path, Velocity(), Plain()), solver, grid)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_a_rehearsal_passes_what_samples(path, name):
    rehearse(Process(path, Velocity(), Plain()), SOLVERS[name], uniform_10)


# docs/sampling.md and conf/ say the same.


def rows() -> dict[tuple[str, str], tuple[str, str]]:
    """(group, name) -> (target, options) of every row of docs/sampling.md that chooses a YAML."""
    pattern = re.compile(r"^\| `(solver|grid|guidance)=(\w+)` \| `(\w+)` \| (.*?) \|", re.M)
    found = pattern.findall((ROOT / "docs/sampling.md").read_text())
    assert len({row[:2] for row in found}) == len(found)
    return {(group, name): (function, options) for group, name, function, options in found}


def configs() -> dict[tuple[str, str], dict]:
    files = [
        file for group in ("solver", "grid", "guidance") for file in (ROOT / "conf" / group).glob("*.yaml")
    ]
    return {(file.parent.name, file.stem): yaml.safe_load(file.read_text()) for file in files}


def test_the_page_has_every_yaml_with_its_values():
    modules = {"solver": ("solvers", "masked"), "grid": ("grids",), "guidance": ("guidance",)}
    stated = {}
    for key, config in configs().items():
        options = {name: value for name, value in config.items() if not name.startswith("_")}
        module, function = config["_target_"].rsplit(".", 1)
        assert module.removeprefix("dit.diffusion.") in modules[key[0]] and config["_partial_"] is True
        shown = ", ".join(
            f"`{name}: {'null' if value is None else value}`" for name, value in options.items()
        )
        stated[key] = (function, shown or "none")
    assert rows() == stated


@pytest.mark.parametrize(("key", "config"), configs().items(), ids=["=".join(key) for key in configs()])
def test_a_yaml_states_every_option_with_the_default_of_the_code(key, config):
    """Except the number of steps, which has no default, and what a verb hands over."""
    handed = {"denoiser", "x", "ts", "condition", "noise", "path", "weak", "classifier", "negative"}
    parameters = inspect.signature(get_object(config["_target_"])).parameters.values()
    options = {p.name: p.default for p in parameters if p.name not in handed}
    stated = {name: value for name, value in config.items() if not name.startswith("_")}
    assert set(stated) == set(options)
    for name, default in options.items():
        assert default is inspect.Parameter.empty or stated[name] == default, name
    assert callable(instantiate(config))


def test_the_yamls_of_solvers_and_grids_sample():
    path = Discrete()
    denoiser = Plausible(path, Noise())
    made = {key: instantiate(config) for key, config in configs().items()}
    for (group, name), thing in made.items():
        solver = thing if group == "solver" else solvers.ddim
        grid = thing if group == "grid" else partial(grids.respaced, n_steps=4)
        if group != "guidance" and name != "unmask":
            assert sample(denoiser, solver, grid, SHAPE, [1], CLASSES.part(slice(1))).x0.isfinite().all(), (
                name
            )
