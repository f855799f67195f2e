"""Whether the laws of N and D agree at the compute that is to be paid for; where not, what their stack says."""

from collections.abc import Callable
from functools import partial
from typing import Any

from dit.errors import InputError
from dit.fits.approaches import differ
from dit.fits.fitted import HELD, Fitted, fitted

LAWS = ("additive", "kaplan")  # quick ones; law=stacked takes more
DECIDED = 0.95  # weight by held-out error from which a law needs no other beside it
NUMBERS = {"n_opt": "N*", "loss_opt": "L*"}


def choice_of_law(found: Fitted, flops: float) -> dict[str, Any] | None:
    """What the laws say at ``flops``, and their stack, where they differ by more than their 95 % intervals; else None.

    None too where held-out error decides for the law that was asked for.

    Returns:
        flops; laws: name -> n_opt and loss_opt, each with value and interval_95; stacked: the same of the stack; said:
        a sentence.
    """
    if found.law not in LAWS or found.drawn() is None or found.fixed:
        return None
    of: dict[str, Callable[[Any], Any]] = {
        name: partial(lambda law, name: getattr(law, name)(flops), name=name) for name in NUMBERS
    }
    draws, told = min(found.draws, HELD), {}
    try:
        for law in LAWS:
            one = (
                found
                if law == found.law
                else fitted(found.points, law, found.loss, found.delta, draws, found.seed)
            )
            told[law] = {name: one.estimate(name, get) for name, get in of.items()}
        apart = [name for name in NUMBERS if differ(told[LAWS[0]][name], told[LAWS[1]][name])]
        if not apart:
            return None
        stack = fitted(found.points, "stacked", found.loss, found.delta, draws, found.seed, laws=LAWS)
    except InputError:  # too few points or budgets for the other law, or for a stack
        return None
    by_held_out = dict(zip(stack.fit.names, stack.fit.weights))
    if by_held_out[found.law] >= DECIDED:
        return None
    stacked = {name: stack.estimate(name, get) for name, get in of.items()}
    weights = ", ".join(f"{law} {weight:.2f}" for law, weight in by_held_out.items())
    values = ", ".join(f"{NUMBERS[name]} {_with_ends(stacked[name])}" for name in NUMBERS)
    each = "; ".join(
        f"{NUMBERS[x]} " + " and ".join(f"{_with_ends(told[y][x])} by {y}" for y in LAWS) for x in apart
    )
    said = (
        f"at {flops:.3g} FLOPs, with the choice of law included: {values}. Laws disagree there by more than their own "
        f"intervals: {each}. Weights by held-out error: {weights}; law=stacked weighs more laws"
    )
    return {"flops": flops, "laws": told, "stacked": stacked, "said": said}


def _with_ends(one: dict[str, Any]) -> str:
    ends = one.get("interval_95")
    return f"{one['value']:.4g}" + (f" ({ends[0]:.4g} to {ends[1]:.4g})" if ends else "")
