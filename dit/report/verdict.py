"""What a study found, in plain words: the best size, ten times the compute, the samples, and for what data it holds."""

from typing import Any

import numpy as np

from dit.fits.choose import AS_NEW
from dit.report.material import Material
from dit.report.words import number_text


def verdict(m: Material, found: dict[str, Any]) -> list[str]:
    """Sentences, the best size first.

    Args:
        m: the study.
        found: its headline.
    """
    said = [_best(m, found), _tenfold(m), _exponent(m, found), _samples(found), _data(m)]
    return [sentence for sentence in said if sentence]


def epochs_of(m: Material) -> list[float]:
    """How often each image had been seen at each reading; empty where the number of images is not recorded."""
    n_train = m.study.runs[0]["data"].get("n_train")
    return [float(images / n_train) for images in m.points.images] if n_train else []


def _best(m: Material, found: dict[str, Any]) -> str:
    inside = [row for row in found["budgets"] if row["accepted"] and row["n_opt"] is not None]
    if not inside:
        return "No budget has its best size inside its row: these runs do not say which size is best."
    row = inside[-1]
    ends = row["n_opt_95"]
    spread = f"95 % {_few(ends[0])} to {_few(ends[1])}" if ends else "no interval"
    return (
        f"The best size at {_few(row['budget_flops'])} FLOPs is {_few(row['n_opt'])} multiply-adds per token "
        f"({spread}), {_between(m, row['n_opt'])}."
    )


def _few(value: float) -> str:
    return number_text(float(value), 3)


def _between(m: Material, size: float) -> str:
    """The trained sizes around a size, by their widths where these tell them apart."""
    widths = {run["macs_per_token"]: run["network"].get("width") for run in m.study.runs}
    sizes = sorted(widths)
    told = len(set(widths.values())) == len(sizes) and None not in widths.values()
    names = {
        one: f"{'width' if told else 'size'} {number_text(widths[one] if told else one)}" for one in sizes
    }
    below, above = [one for one in sizes if one <= size], [one for one in sizes if one > size]
    if not below:
        return f"below {names[sizes[0]]}, the smallest trained"
    if not above:
        return f"above {names[sizes[-1]]}, the largest trained"
    return f"between {names[below[-1]]} and {names[above[0]]}"


def _tenfold(m: Material) -> str | None:
    rows = m.analysis["targets"]
    if len(rows) < 2:
        return None
    now, then = rows[0], rows[1]
    of_size, of_loss = (
        f" (95 % {number_text(ends[0], digits)} to {number_text(ends[1], digits)})" if ends else ""
        for ends, digits in ((then.get("n_interval_95"), 3), (then.get("loss_interval_95"), 4))
    )
    return (
        f"By the fitted law, ten times the compute is best spent on {_few(then['n'])} multiply-adds per token{of_size} "
        f"and {_few(then['d'])} images, and changes the loss from {number_text(now['loss'])} to "
        f"{number_text(then['loss'])}{of_loss}."
    )


def _exponent(m: Material, found: dict[str, Any]) -> str | None:
    """How far the exponent can be trusted: its doubts, and how far other choices move it."""
    rows = m.analysis["sensitivity"]
    law = (found["exponents"][found["law"]] or {}).get("n") or {}
    if not rows or rows[0]["a"] is None or law.get("value") is None:
        return None
    moved = [(abs(row["a"] - rows[0]["a"]), row) for row in rows[1:] if row["a"] is not None]
    text = f"The exponent of N* is {rows[0]['a']:.3f}"
    if moved:
        most, row = max(moved, key=lambda one: one[0])
        sd = f", {most / rows[0]['sd']:.1f} times its bootstrap sd" if rows[0].get("sd") else ""
        text += f'; of the choices tried, "{row["what"]}" moves it most, to {row["a"]:.3f}{sd}'
    return text + (f". It is doubtful: {law['doubt']}." if law["doubt"] else ".")


def _samples(found: dict[str, Any]) -> str | None:
    rows = [row for row in found["budgets"] if row["frechet_distance"] is not None]
    if not rows:
        return None
    first, last = rows[0], rows[-1]
    text = f"Samples without guidance have a Fréchet distance of {_few(last['frechet_distance'])} at the largest budget"
    text += f" and of {_few(first['frechet_distance'])} at the smallest" if len(rows) > 1 else ""
    judged = last["guided_accuracy"]
    return text + ("." if judged is None else f"; {judged:.1%} of the guided samples there are judged right.")


def _data(m: Material) -> str | None:
    epochs, name = epochs_of(m), m.study.runs[0]["data"].get("name")
    if not epochs:
        return None
    most = float(np.max(epochs))
    if most <= 1:
        return f"No image of {name} was seen twice: the laws hold for fresh data of this kind."
    times = number_text(round(most, 1) if most < AS_NEW else round(most))
    worth = (
        ": an image seen again is worth less than a new one, so they hold for this set alone"
        if most > AS_NEW
        else ""
    )
    return f"These laws hold for {name} with each image seen up to {times} times{worth}."
