"""The YAML files of objectives, and the tables of docs/objectives.md which list them."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from dit.condition import labelled
from dit.diffusion import masked
from dit.diffusion.masked import MaskedObjective
from dit.diffusion.objective import Objective
from dit.diffusion.paths import VE, VP, Cosine, Discrete, Linear
from dit.diffusion.targets import Data, Karras, Noise, Velocity, VPrediction
from dit.diffusion.times import LogitNormal, LogNormalSigma, Shifted, Uniform
from dit.diffusion.vlb import prior_bits
from dit.diffusion.weights import EDM, MinSNR
from dit.diffusion.weights import Uniform as Plain
from dit.domain import Domain
from tests.diffusion.values import Stub, draw

ROOT = Path(__file__).parents[2]
CONF, DOCS = ROOT / "conf", ROOT / "docs/objectives.md"
GROUPS = {"path": "Paths", "target": "Targets", "times": "Times", "weight": "Weights"}
VALUES = GROUPS | {"masking": "Masked tokens"}

LINEAR_BETAS, COSINE_BETAS = Discrete("linear", 1000, 1e-4, 0.02), Discrete("cosine")
# The papers' choices, written down a second time.
ROWS = {
    "ddpm": Objective(LINEAR_BETAS, Noise(), Uniform(), Plain()),
    "ddpm_learned_variance": Objective(LINEAR_BETAS, Noise(), Uniform(), Plain(), True),
    "edm": Objective(VE(0.002, 80.0), Karras(0.5), LogNormalSigma(-1.2, 1.2), EDM(0.5)),
    "edm_unit_variance": Objective(
        VE(0.004, 160.0), Karras(1.0), LogNormalSigma(-0.50685281944, 1.2), EDM(1.0)
    ),
    "iddpm_cosine": Objective(COSINE_BETAS, Noise(), Uniform(), Plain(), True),
    "min_snr": Objective(COSINE_BETAS, Data(), Uniform(), MinSNR(5.0)),
    "rectified_flow": Objective(Linear(), Velocity(), Uniform(), Plain()),
    "score_sde_vp": Objective(VP(0.1, 20.0), Noise(), Uniform(), Plain()),
    "sd3": Objective(Linear(), Velocity(), LogitNormal(0.0, 1.0), Plain()),
    "sit_gvp": Objective(Cosine(), Velocity(), Uniform(), Plain()),
    "v_prediction": Objective(Cosine(), VPrediction(), Uniform(), Plain()),
    "x0_prediction": Objective(LINEAR_BETAS, Data(), Uniform(), Plain()),
}


def names(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml") if file.stem != "masked")


def build(*overrides: str):
    """The object of the first override's group."""
    group = overrides[0].removeprefix("+").split("=")[0]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose(config_name=None, overrides=list(overrides))[group])


@cache
def table(title: str) -> list[dict[str, str]]:
    """Rows of the first table under a heading, by column; the first column is called name."""
    section = DOCS.read_text().split(f"## {title}\n", 1)[1]
    lines = [line for line in section.split("\n## ", 1)[0].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    header = ["name", *cells[0][1:]]
    return [dict(zip(header, row, strict=True)) for row in cells[2:]]


def papers(text: str) -> set[str]:
    return set(re.findall(r"\b\d{4}\.\d{5}\b", text))


@pytest.mark.parametrize("row", names("objective"))
def test_a_row_is_what_its_paper_chose(row):
    objective = build(f"+objective={row}")
    assert objective == ROWS[row]
    loss = objective.loss(
        objective.process.denoiser(Stub(objective.process.out_channels(Domain(1, (1, 1))))),
        draw((4, 2, 4, 4), 0),
        labelled(torch.zeros(4, dtype=torch.int64)),
        (torch.arange(4, dtype=torch.float64) + 0.5) / 4,
        draw((4, 2, 4, 4), 1),
    )
    assert torch.isfinite(loss.loss).all()


def test_masked_tokens_have_a_row_of_their_own():
    assert build("+objective=masked") == MaskedObjective(masked.Linear(), "counts")
    other = build("+objective=masked", "masking@objective.masking=polynomial", "objective.estimator=times")
    assert other == MaskedObjective(masked.Polynomial(2.0), "times")


def test_one_value_of_a_row_can_be_changed():
    base = "+objective=ddpm"
    assert build(base, "path@objective.path=cosine").path == Cosine()
    assert build(base, "target@objective.target=velocity").target == Velocity()
    assert build("+objective=sd3", "objective.times.s=1.2").times == LogitNormal(0.0, 1.2)
    moved = build(base, "times@objective.times=shifted", "objective.times.shift=2.0").times
    assert moved == Shifted(2.0, Uniform())
    other = build(base, "times@objective.times=shifted", "times@objective.times.base=logit_normal")
    assert other.times == Shifted(3.0, LogitNormal())
    assert build(base, "objective.weight.space=data").weight == Plain("data")
    assert build(base, "objective.path.steps=250").path.steps == 250


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in VALUES for name in names(group)])
def test_every_value_has_a_yaml_with_every_number(group, name):
    """What a file leaves out would be a default hidden in code."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(config_name=None, overrides=[f"+{group}={name}"])
    value = instantiate(config[group])
    numbers = {key for key in OmegaConf.to_container(config)[group] if key != "_target_"}
    assert numbers == {field for field, spec in type(value).__dataclass_fields__.items() if spec.init}
    # The numbers of the YAML are those of the code, the schedule's own ends of beta aside.
    default = type(value)(*([value.schedule] if isinstance(value, Discrete) else []))
    if isinstance(value, Discrete):
        assert torch.equal(value.betas, default.betas)
    else:
        assert value == default


def test_the_table_of_rows_is_the_yaml():
    rows = table("Rows")
    assert [row["name"].strip("`") for row in rows] == names("objective") == sorted(ROWS)
    for row in rows:
        name = row["name"].strip("`")
        text = (CONF / f"objective/{name}.yaml").read_text()
        chosen = dict(re.findall(r"- /(\w+)@\w+: (\w+)", text))
        assert chosen == {group: row[group] for group in GROUPS}, name
        assert ("variance learned" in row[list(row)[-2]]) == ("learned_variance: true" in text)
        assert papers(row["source"]) == papers("".join(re.findall(r"^#.*$", text, re.M))), name


@pytest.mark.parametrize("group", VALUES)
def test_the_tables_of_values_are_the_yaml(group):
    rows = table(VALUES[group])
    assert sorted(row["name"].strip("`") for row in rows) == names(group)
    for row in rows:
        name = row["name"].strip("`")
        first_line = (CONF / group / f"{name}.yaml").read_text().splitlines()[0]
        assert first_line.startswith("# ")
        assert papers(row["source"]) <= papers(first_line), name


def test_the_ends_in_the_table_are_those_of_the_paths():
    for row in table("Paths"):
        path = build(f"+path={row['name'].strip('`')}")
        ends = [eval(end, {"T": 1000}) for end in row["t_min, t_max"].split(", ")]
        assert [path.t_min, path.t_max] == pytest.approx(ends, rel=1e-12)
        shown = path.time_shown(torch.tensor([0.25], dtype=torch.float64)).item()
        expected = {"1000 t": 250, "k": 250, "ln(sigma)/4": -0.34657359}[row["shown to the network"]]
        assert shown == pytest.approx(expected)


def test_known_signal_left_at_the_last_step():
    """abar_T: DDPM linear 4.04e-5 (its prior term is below 1e-4 bits); latent diffusion's leaves 0.0047."""
    last = {name: build(f"+path={name}") for name in ("ddpm_linear", "ddpm_scaled_linear")}
    abar = {n: p.alpha(torch.tensor([p.t_max], dtype=torch.float64)).item() ** 2 for n, p in last.items()}
    assert abar["ddpm_linear"] == pytest.approx(4.0358e-5, rel=1e-4)
    assert abar["ddpm_scaled_linear"] == pytest.approx(0.00466, rel=1e-2)
    assert prior_bits(last["ddpm_linear"], draw((4, 2, 4, 4), 0)).max() < 1e-4
