"""Points and CSV files: one clear message for each kind of wrong input."""

import numpy as np
import pytest

from dit.errors import InputError
from dit.fits.points import Points, drop_outliers, read_points

COLUMNS = {"n": "params", "d": "tokens", "loss": "loss"}


def table(tmp_path, rows, header="params,tokens,flops,loss,run,kind"):
    file = tmp_path / "points.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


ROWS = ["1e7,1e9,6e16,3.1,a,x", "2e7,1e9,1.2e17,3.0,b,x", "4e7,1e9,2.4e17,2.9,c,y"]


def test_a_file_is_read_by_its_columns(tmp_path):
    points = read_points(table(tmp_path, ROWS), {**COLUMNS, "c": "flops", "run": "run"})
    assert points.get("n").tolist() == [1e7, 2e7, 4e7]
    assert points.k == pytest.approx(6.0)
    assert points.k_spread == pytest.approx(0.0, abs=1e-12)
    assert points.runs.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("given", "missing"), [(("n", "d"), "c"), (("n", "c"), "d"), (("d", "c"), "n")]
)  # fmt: skip
def test_the_third_of_n_d_and_c_follows_from_the_other_two(given, missing):
    full = {"n": np.array([1e7, 3e7]), "d": np.array([1e9, 5e9])}
    full["c"] = 96 * full["n"] * full["d"]
    points = Points(np.array([3.0, 2.9]), **{name: full[name] for name in given}).completed(96)
    assert points.get(missing) == pytest.approx(full[missing])


def test_conditions_select_rows(tmp_path):
    file = table(tmp_path, ROWS)
    assert len(read_points(file, COLUMNS, ["flops<2e17"])) == 2
    assert len(read_points(file, COLUMNS, ["kind = x", "params >= 2e7"])) == 1
    assert len(read_points(file, COLUMNS, ["kind!=x"])) == 1


def test_outliers_are_the_highest_losses():
    points = Points(np.array([3.0, 9.0, 2.0, 4.0]), c=np.array([1.0, 2.0, 3.0, 4.0]))
    assert drop_outliers(points, 2).loss.tolist() == [3.0, 2.0]


@pytest.mark.parametrize(
    ("rows", "columns", "where", "message"),
    [
        (
            ROWS,
            {**COLUMNS, "n": "size"},
            [],
            "columns.n: got 'size'; allowed: a column of the file: params, tokens",
        ),
        (ROWS, {"n": "params"}, [], "columns.loss: nothing was given"),
        (
            ["1e7,-1e9,6e16,3.1,a,x"],
            COLUMNS,
            [],
            r"columns.d: got \('tokens' is '-1e9' in line 2\); allowed: a positive finite number",
        ),
        (["0,1e9,6e16,3.1,a,x"], COLUMNS, [], r"columns.n: got \('params' is '0' in line 2"),
        (
            [ROWS[0], *["1e7,1e9,6e16,nan,a,x"] * 2],
            COLUMNS,
            [],
            r"columns.loss: got \('loss' is 'nan' in line 3, 2 such\); allowed: .* Leave such rows out: where='loss>0'",
        ),
        (
            ["1e7,1e9,6e16,inf,a,x"],
            COLUMNS,
            [],
            r"columns.loss: got \('loss' is 'inf' in line 2\); .* where='loss<inf'",
        ),
        (
            ['"10,000,000",1e9,6e16,3.1,a,x'],
            COLUMNS,
            [],
            r"'params' is '10,000,000' in line 2.* thousands without commas",
        ),
        (
            ["1e7,1e9,6e16,,a,x"],
            COLUMNS,
            [],
            r"columns.loss: got \('loss' is '' in line 2\); allowed: a positive finite number",
        ),
        (ROWS, COLUMNS, ["flops<1"], "where: got .*; allowed: conditions that some rows meet"),
        (ROWS, COLUMNS, ["speed>1"], "where: got 'speed'; allowed: a column of the file"),
        (
            ROWS,
            {**COLUMNS, "protocol": "kind"},
            [],
            r"protocol.*\(2 values in column 'kind': x, y\); allowed: one protocol",
        ),
        (
            [ROWS[0], ROWS[0]],
            {**COLUMNS, "run": "run"},
            [],
            "run 'a' is read twice at the same point, rows 1 and 2",
        ),
    ],
)
def test_wrong_files_say_what_is_wrong(tmp_path, rows, columns, where, message):
    with pytest.raises(InputError, match=message):
        read_points(table(tmp_path, rows), columns, where)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(
        InputError, match=r"data: got .*nothing.csv'; allowed: a CSV file or a study directory"
    ):
        read_points(tmp_path / "nothing.csv", COLUMNS)


def test_unequal_columns_are_refused():
    with pytest.raises(InputError, match=r"columns\.n"):
        Points(np.array([1.0, 2.0]), n=np.array([1.0]))


def test_budgets_are_given_or_grouped_or_binned():
    loss = np.ones(6)
    near = np.array([1.0e18, 1.02e18, 1.04e18, 1e19, 1.01e19, 1.05e19])
    grouped = Points(loss, c=near)
    assert (grouped.budget_kind, grouped.budgets.tolist()) == ("grouped", [0, 0, 0, 1, 1, 1])
    assert Points(loss, c=near, budget=np.array([1, 1, 2, 2, 3, 3.0])).budgets.tolist() == [0, 0, 1, 1, 2, 2]
    scattered = Points(np.ones(60), c=np.geomspace(1e18, 1e20, 60))
    assert scattered.budget_kind == "binned"
    assert scattered.budgets.max() == 4


def test_equal_points_are_one_key_and_others_are_not():
    """Fits are kept by their points."""
    loss, c = np.array([3.0, 2.0]), np.array([1.0, 2.0])
    one = Points(loss, c=c)
    assert one == Points(loss.copy(), c=c.copy())
    assert len({one, Points(loss.copy(), c=c.copy())}) == 1
    for other in (
        Points(loss, n=c),
        Points(loss, c=c + 1e-12),
        Points(loss, c=c, run=np.array(["a", "b"])),
        one[:1],
    ):
        assert other != one
