"""``dit fit`` on files as people have them: what is read all the same, and what is refused with one message."""

import json
import sys

import numpy as np
import pytest

from dit.fits.additive import fit_additive
from dit.fits.points import read_points
from tests.fits.surfaces import Truth, isoflop_points

HEADER = ("run", "params", "tokens", "flops", "loss")
COLUMNS = ["columns.n=params", "columns.d=tokens", "columns.c=flops", "columns.run=run", "bootstrap=0"]


def rows():
    """35 runs at 5 budgets, their optima inside."""
    points = isoflop_points(Truth(), 0.0003, budgets=5, sizes=7, span=64.0)
    columns = (points.run, points.n, points.d, points.c, points.loss)
    return [[str(value) for value in row] for row in zip(*columns)]


def text(rows, header=HEADER, delimiter=","):
    return "\n".join(delimiter.join(row) for row in [header, *rows]) + "\n"


@pytest.fixture
def fit(tmp_path, monkeypatch, capsys):
    """Fits a file's content through the command line: exit code, answer, what was said on stderr."""
    from hydra.core.global_hydra import GlobalHydra

    from dit import cli

    def run(content, *arguments):
        file = tmp_path / "points.csv"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["dit"])
        with pytest.raises(SystemExit) as end:
            cli.main(["fit", f"data={file}", *COLUMNS, *arguments, "format=json"])
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return run


def blank_lines(table):
    lines = table.splitlines()
    return "\n".join([*lines[:4], "", "   ", *lines[4:], ",,,,", ""])


READ = {
    "byte order mark": lambda r: b"\xef\xbb\xbf" + text(r).encode(),
    "line ends of Windows": lambda r: text(r).replace("\n", "\r\n"),
    "blank lines": lambda r: blank_lines(text(r)),
    "semicolons": lambda r: text(r, delimiter=";"),
    "tabs": lambda r: text(r, delimiter="\t"),
    "other case, blanks around names": lambda r: text(r, ("Run", " Params", "TOKENS ", "FLOPs", "Loss")),
    "quotes and blanks around numbers": lambda r: text(
        [[f'"{c}"' for c in row[:4]] + [f" {row[4]} "] for row in r]
    ),
    "a spreadsheet's line of its delimiter": lambda r: "sep=;\n" + text(r, delimiter=";"),
    "the same in quotes, for commas": lambda r: '"sep=,"\r\n' + text(r),
    "a delimiter of its own": lambda r: "sep=~\n" + text(r, delimiter="~"),
    "its line with blanks": lambda r: "sep = ;\n" + text(r, delimiter=";"),
    "its line with a tab in two signs": lambda r: "sep=\\t\n" + text(r, delimiter="\t"),
    "comments between and below": lambda r: text(
        [*r[:3], ["# moved, to another machine"], *r[3:], ["# end"]]
    ),
    "comments above": lambda r: '# runs, "of May\n#\n\n' + text(r),
    "a header in the comment": lambda r: "# made by numpy\n# " + text(r),
    "bars": lambda r: text(r, delimiter="|"),
    "delimiters inside quotes": lambda r: text(
        [[*row, '"a, b; c, d"'] for row in r], (*HEADER, '"a, note, of, many, words"'), ";"
    ),
    "blanks after commas": lambda r: text([[row[0], *(f' "{cell}"' for cell in row[1:])] for row in r]),
    "further columns": lambda r: text([[*row, "a note"] for row in r], (*HEADER, "note")),
}


def points(tmp_path, content, **columns):
    file = tmp_path / "points.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_points(
        file, {"n": "params", "d": "tokens", "c": "flops", "loss": "loss", "run": "run", **columns}
    )


@pytest.mark.parametrize("case", READ)
def test_files_as_people_have_them_are_read(case, tmp_path):
    found, expected = points(tmp_path, READ[case](rows())), points(tmp_path, text(rows()))
    for name in ("run", "n", "d", "c", "loss"):
        assert (getattr(found, name) == getattr(expected, name)).all()


def test_one_umlaut_may_be_spelled_two_ways(tmp_path):
    """As one letter, or as a Mac writes names: u and two dots."""
    found = points(
        tmp_path, text(rows(), ("run", "Gro\u0308\u00dfe", "tokens", "flops", "loss")), n="Gr\u00f6\u00dfe"
    )
    assert (found.n == points(tmp_path, text(rows())).n).all()


def test_a_run_may_be_called_by_a_number_sign(tmp_path):
    named = [[f"#{i}", *row[1:]] for i, row in enumerate(rows())]
    assert len(points(tmp_path, text(named))) == len(named)


def test_scientific_notation_is_read(tmp_path):
    short = [[row[0], *(f"{float(cell):.6E}" for cell in row[1:])] for row in rows()]
    assert fit_additive(points(tmp_path, text(short))).a == pytest.approx(Truth().exponent(), abs=0.02)


@pytest.mark.parametrize("missing", ["n", "d", "c"])
def test_two_of_n_d_and_c_are_enough(missing, tmp_path):
    """C = 6 N D fills in the third."""
    whole = fit_additive(points(tmp_path, text(rows())))
    found = fit_additive(points(tmp_path, text(rows()), **{missing: None}))
    for name in ("A", "B", "E", "alpha", "beta"):
        assert getattr(found, name) == pytest.approx(getattr(whole, name), rel=1e-6)


def changed(rows, row, column, value):
    rows[row][column] = value
    return rows


def larger_half(rows):
    """Each budget's sizes from its best one up: every optimum lies at the edge."""
    kept = []
    for budget in sorted({row[3] for row in rows}, key=float):
        mine = sorted((row for row in rows if row[3] == budget), key=lambda row: float(row[1]))
        kept += mine[int(np.argmin([float(row[4]) for row in mine])) :]
    return kept


REFUSED = {
    "missing column": (lambda r: text([x[:2] + x[3:] for x in r], ("run", "params", "flops", "loss")), [], "columns.d"),
    "two columns of one name": (lambda r: text(r, ("run", "params", "params", "flops", "loss")), [], "columns.n"),
    "negative loss": (lambda r: text(changed(r, 3, 4, "-2.5")), [], "columns.loss"),
    "zero size": (lambda r: text(changed(r, 3, 1, "0")), [], "columns.n"),
    "infinite data": (lambda r: text(changed(r, 3, 2, "inf")), [], "columns.d"),
    "not a number": (lambda r: text(changed(r, 3, 4, "n/a")), [], "line 5"),
    "an empty cell": (lambda r: text(changed(r, 3, 4, "")), [], "line 5"),
    "nan": (lambda r: text(changed(r, 3, 4, "nan")), [], "columns.loss"),
    "fewer points than parameters": (lambda r: text(r[:4]), [], "5 parameters"),
    "as many points as parameters": (lambda r: text(r[::7]), [], "5 parameters"),
    "one budget, additive": (lambda r: text(r[:7]), [], "one budget only"),
    "one budget, isoflop": (lambda r: text(r[:7]), ["law=isoflop"], "one budget only"),
    "one budget, power": (lambda r: text(r[:7]), ["law=power"], "1 different values"),
    "all optima at the edge": (lambda r: text(larger_half(r)), ["law=isoflop"], "at the edge"),
    "one run twice": (lambda r: text([*r, r[3]]), [], "'r3' is read twice"),
    "mixed protocols": (
        lambda r: text([[*x, f"p{i % 2}"] for i, x in enumerate(r)], (*HEADER, "protocol")), [], "where='protocol="
    ),
    "mixed protocols, other case": (
        lambda r: text([[*x, f"p{i % 2}"] for i, x in enumerate(r)], (*HEADER, "Protocol")), [], "where='Protocol="
    ),
    "mixed protocols, named column": (
        lambda r: text([[*x, f"p{i % 2}"] for i, x in enumerate(r)], (*HEADER, "how")),
        ["columns.protocol=how"], "columns.protocol",
    ),
    "losses all equal": (lambda r: text([[*x[:4], "2.0"] for x in r]), [], "columns.loss"),
    "a row cut short": (lambda r: text(r) + "r99,1e7,1e9\n", [], "3 cells"),
    "a header alone": (lambda r: text([]), [], "at least one row"),
    "one row": (lambda r: text(r[:1]), [], "5 parameters"),
    "decimal commas": (
        lambda r: text([[x[0], *(c.replace(".", ",") for c in x[1:])] for x in r], delimiter=";"), [], "decimal point"
    ),
    "a title above": (lambda r: "Table 3: all runs\n" + text(r), [], "Line 1 was taken for it: 'Table 3: all runs'"),
    "two titles above": (lambda r: "Table 3\nall runs\n" + text(r), [], "Line 1 was taken for it: 'Table 3'"),
    "millions": (lambda r: text(changed(r, 3, 1, "4.5M")), [], "4.5e+06 for '4.5M'"),
    "a unit": (lambda r: text(changed(r, 3, 3, "1.2e18 FLOPs")), [], "Write the number alone: 1.2e18"),
    "money": (lambda r: text(changed(r, 3, 4, "$2.5k")), [], "2500 for '$2.5k'"),
    **{
        f"no number: {cell}": (
            lambda r, cell=cell: text(changed(r, 3, 4, cell)), [], "Write one number, such as 1234.5"
        )
        for cell in ("0x10", "2·10^3", "1'000", "1 000", "2.5e", "<2.5")
    },
    "more than a number holds": (lambda r: text(changed(r, 3, 4, "1e999")), [], "where='loss<inf'"),
    "less than a number holds": (lambda r: text(changed(r, 3, 4, "1e-400")), [], "where='loss>0'"),
    "comments of other languages": (lambda r: "// a, b\n" + text(r), [], "Begin comments with #"),
    "a comma inside a number": (lambda r: text(changed(r, 3, 4, "2,5")), [], "stands in quotes"),
    "an open quote": (lambda r: text(changed(r, 0, 0, '"r0')), [], "quote in it is not closed"),
    "blanks between cells": (lambda r: text(r, delimiter=" "), [], "between commas, semicolons, tabs or bars"),
    "one column for two": (lambda r: text(r), ["columns.d=params"], "than that of columns.n"),
    "budgets of few sizes": (
        lambda r: text([x for i, x in enumerate(r) if i % 7 in (1, 3, 5)]), ["law=isoflop"], "budgets of 3 sizes"
    ),
    "nothing": (lambda r: "", [], "at least one row"),
    "not UTF-8": (lambda r: text(r).replace("loss", "l\xf6ss").encode("latin-1"), [], "UTF-8"),
    "no row left": (lambda r: text(r), ["where=flops<1e3"], "where"),
    "unknown column of a condition": (lambda r: text(r), ["where=size<1e3"], "where"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_files_are_one_message_and_exit_2(case, fit):
    make, arguments, named = REFUSED[case]
    code, _, message = fit(make(rows()), *arguments)
    assert code == 2, message
    assert named in message and "Traceback" not in message
    assert len(message.strip().splitlines()) == 1, message


def test_conditions_need_no_quotes(fit):
    found = json.loads(fit(text(rows()), "where=[flops<3e17,params>1e6]")[1])
    kept = [row for row in rows() if float(row[3]) < 3e17 and float(row[1]) > 1e6]
    assert found["points"]["n"] == len(kept)


def test_names_need_no_quotes(fit, tmp_path):
    """Hydra takes a word with parentheses for a call, and one with brackets for a list."""
    named = ("run", "Params (N)", "tokens", "C [FLOPs]", "loss: nats")
    arguments = ["columns.n=Params (N)", "columns.c=C [FLOPs]", "columns.loss=loss: nats"]
    assert fit(text(rows(), named), *arguments, "where=C [FLOPs]<3e17") == fit(
        text(rows()), "where=flops<3e17"
    )


def test_conditions_leave_out_what_is_no_number(fit):
    broken = [[*row[:4], "NaN"] if i == 3 else row for i, row in enumerate(rows())]
    for condition in ("loss>0", "loss!=NaN"):
        found = json.loads(fit(text(broken), f"where={condition}")[1])
        assert found["points"]["n"] == len(broken) - 1


def test_compute_in_units_of_its_own_is_said_so(fit):
    """Millions of parameters times billions of tokens: 6 N D is short of a factor of 1e15."""
    short = [[row[0], str(float(row[1]) / 1e6), str(float(row[2]) / 1e9), *row[3:]] for row in rows()]
    found = json.loads(fit(text(short), "columns.c=null")[1])
    assert any("flops_per_nd" in warning for warning in found["warnings"])
    found = json.loads(fit(text(short), "columns.c=null", "flops_per_nd=6e15")[1])
    assert found["warnings"] == []
    assert found["points"]["budgets_flops"][0] == pytest.approx(float(rows()[0][3]))
