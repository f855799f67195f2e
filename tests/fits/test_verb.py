"""``dit fit`` as a user runs it: published values through the CSV interface, studies, messages, speed."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import dit
from tests.fits.surfaces import Truth, isoflop_points
from tests.fits.synthetic import Surface, write_study

CHINCHILLA = ["columns.n='Model Size'", "columns.c='Training FLOP'", "drop_highest=5"]


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """24 points at 4 budgets."""
    points = isoflop_points(Truth(), 0.003, budgets=4, sizes=6)
    file = tmp_path_factory.mktemp("fit") / "points.csv"
    rows = zip(points.get("n"), points.get("d"), points.get("c"), points.loss, points.get("run"))
    file.write_text(
        "params,tokens,flops,loss,run\n" + "\n".join(",".join(map(str, row)) for row in rows) + "\n"
    )
    return file


COLUMNS = ["columns.n=params", "columns.d=tokens", "columns.c=flops"]


def answer(*arguments: str, cwd: Path) -> dict:
    return json.loads(dit("fit", *arguments, "format=json", cwd=cwd, check=0).stdout)


def test_chinchilla_through_the_command_line(shared, tmp_path):
    data = f"data={shared}/reference/chinchilla/svg_extracted_data.csv"
    found = answer(data, *CHINCHILLA, "law=additive", "bootstrap=4000", "seed=42", cwd=tmp_path)
    assert found["fit"]["objective"] == pytest.approx(1.0182740178e-3, rel=1e-7)
    assert found["parameters"]["a"]["value"] == pytest.approx(0.513900, abs=2e-4)
    assert found["parameters"]["a"]["sd"] == pytest.approx(0.0200, abs=1e-4)
    assert found["parameters"]["a"]["percentiles_95"] == pytest.approx([0.4805, 0.5562], abs=2e-4)
    assert found["bootstrap"]["converged"] == 4000
    assert len(found["residuals"]) == 240
    # six times the sd is what choices move a by: least squares without C > 1e21 gives .5665
    shifts = [row["shift"] for row in found["sensitivity"]["variants"]]
    assert max(shifts) > 2 * found["sensitivity"]["sd"]


def test_least_squares_on_selected_rows(shared, tmp_path):
    data = f"data={shared}/reference/chinchilla/svg_extracted_data.csv"
    where = "where=['Training FLOP<1e21']"
    found = answer(data, *CHINCHILLA, where, "loss=mse", "bootstrap=0", cwd=tmp_path)
    assert found["points"]["n"] == 217
    assert found["fit"]["objective"] == pytest.approx(0.0624143, rel=1e-4)
    assert found["bootstrap"] is None


def test_fid_slope(shared, tmp_path):
    data, where = (
        f"data={shared}/reference/published.csv",
        "where=['paper=DiT 2212.09748','train_steps=400000']",
    )
    found = answer(
        data, "columns.c=gflops_fwd", "columns.loss=fid", where, "law=power", "loss=mse_log", cwd=tmp_path
    )
    assert found["parameters"]["exponent"]["value"] == pytest.approx(-0.3645, abs=5e-5)
    assert found["fit"]["stderr"] == pytest.approx(0.0435, abs=5e-5)
    assert found["fit"]["correlation"] == pytest.approx(-0.930, abs=5e-4)


@pytest.mark.parametrize("law", ["additive", "isoflop", "envelope", "power", "power_floor"])
def test_every_law_answers_as_json_and_as_tables(law, table, tmp_path):
    columns = ["columns.c=flops"] if law.startswith("power") else [*COLUMNS, "columns.run=run"]
    found = answer(f"data={table}", *columns, f"law={law}", "bootstrap=100", cwd=tmp_path)
    assert found["law"] == law
    assert all("interval_95" in value for value in found["parameters"].values())
    assert found["sensitivity"]["variants"]
    if law == "isoflop":
        assert [valley["rejected"] for valley in found["valleys"]] == [""] * 4
        assert found["holdout"]["predicted"] == pytest.approx(found["holdout"]["measured"], rel=0.3)
    shown = dit("fit", f"data={table}", *columns, f"law={law}", "bootstrap=100", cwd=tmp_path, check=0).stdout
    assert f"law {law}" in shown


def test_parameters_may_be_given(table, tmp_path):
    words = [f"data={table}", *COLUMNS, "bootstrap=20", "fix.alpha=beta", "fix.E=1.5"]
    found = answer(*words, cwd=tmp_path)["parameters"]
    assert (found["E"]["value"], found["E"]["doubt"]) == (1.5, "given, not fitted")
    assert found["alpha"]["value"] == found["beta"]["value"] and found["alpha"]["doubt"] == "equal to beta"
    assert "given, not fitted" in dit("fit", *words, cwd=tmp_path, check=0).stdout
    refused = dit("fit", f"data={table}", *COLUMNS, "law=power", "fix.A=1", cwd=tmp_path, check=2).stderr
    assert "fix.A: got 1; allowed: parameters of law=power: none can be fixed." in refused


def test_asked_budgets_are_allocated(table, tmp_path):
    found = answer(f"data={table}", *COLUMNS, "at_flops=[1e18,1e20]", "bootstrap=100", cwd=tmp_path)
    assert [row["flops"] for row in found["allocation"]] == [1e18, 1e20]
    for row in found["allocation"]:
        truth = Truth().n_opt(row["flops"])
        assert row["n_opt"]["interval_95"][0] < truth < row["n_opt"]["interval_95"][1]
        assert row["loss_ratio_at_twice_n"] > 1 < row["loss_ratio_at_half_n"]


def test_a_study_is_read_from_its_records(tmp_path):
    surface = Surface(widths=(32, 48, 64, 96, 128, 192, 256, 384))
    study = write_study(tmp_path / "study", surface, samples=False)
    found = answer(f"data={study}", "bootstrap=200", cwd=tmp_path)
    assert found["points"]["flops_per_nd"] == pytest.approx(6 * surface.tokens)
    assert found["bootstrap"]["resampled"] == "run"
    low, high = found["parameters"]["a"]["interval_95"]
    assert low < surface.beta / (surface.alpha + surface.beta) < high
    assert any(
        row["choice"] == "size" and row["value"] == "n_params_total"
        for row in found["sensitivity"]["variants"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "data: nothing was given; allowed: a CSV file or a study directory"),
        (["data=nothing.csv"], "data: got 'nothing.csv'"),
        (
            ["data={table}", "columns.n=size"],
            "columns.n: got 'size'; allowed: a column of the file: params, tokens",
        ),
        (["data={table}", *COLUMNS, "law=cubic"], "law: got 'cubic'; allowed: one of additive, isoflop"),
        (["data={table}", *COLUMNS, "loss=l2"], "loss: got 'l2'"),
        (["data={table}", *COLUMNS, "bootstrap=-1"], "bootstrap: got -1"),
        (["data={table}", "columns.n=params"], "columns.d: nothing was given"),
        (
            ["data={table}", *COLUMNS, "where=['flops<1e15']"],
            "where: got ['flops<1e15']; allowed: conditions",
        ),
        (["data={table}", *COLUMNS, "where=['flops<2e16']"], "one budget only"),
        (["data={table}", *COLUMNS, "delta=0"], "delta: got 0"),
    ],
)
def test_mistakes_end_in_one_message_and_exit_code_2(arguments, message, table, tmp_path):
    found = dit("fit", *[word.format(table=table) for word in arguments], cwd=tmp_path)
    assert found.returncode == 2
    assert message in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


def test_small_inputs_are_answered_quickly_and_without_torch(table, tmp_path):
    script = (
        "import sys, dit.cli\n"
        "try: dit.cli.main(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code in (0, None), end.code\n"
        "heavy = {'torch', 'lightning', 'matplotlib', 'wandb', 'scipy.optimize'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PATH": ""}
    command = [sys.executable, "-c", script, "fit", f"data={table}", *COLUMNS]
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert found.returncode == 0, found.stderr
    assert min(took) < 5  # CPU seconds; 2.7 on a free core, and a busy one counts more for the same work


def test_repetition_is_read_from_a_study(tmp_path):
    """Its runs see 1,500 images again and again; keys that select rows of a CSV file are refused."""
    widths = (32, 48, 64, 96, 128, 192, 256, 384)
    study = write_study(tmp_path / "study", Surface(widths=widths, n_train=1500), samples=False)
    found = answer(f"data={study}", "law=data_limited", "loss=mse", "bootstrap=20", cwd=tmp_path)
    assert found["law"] == "data_limited"
    assert set(found["parameters"]) >= {"R_D", "R_N"}
    for selection in ("where=[flops>1]", "columns.n=params", "flops_per_nd=6"):
        refused = dit("fit", f"data={study}", selection, cwd=tmp_path, check=2)
        assert "data is a study's directory" in refused.stderr
