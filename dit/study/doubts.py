"""What is questionable about a plan, each doubt with its reason; a plan that can tell nothing is refused."""

from dit.data.split import FEWEST_HELD_OUT
from dit.errors import InputError
from dit.fits.additive import PARAMETERS
from dit.study.planned import Plan

FEWEST_SIZES = 5  # per budget, for a parabola whose minimum means something
FEWEST_ASIDE = 2  # sizes on either side of the expected best one
NARROWEST = 8.0  # largest over smallest size of a budget: isoFLOP curves are shallow
DECADES = 100.0  # largest over smallest budget
MOST_EPOCHS = 10  # beyond it, repeated data begins to matter
LARGEST_SD = 0.05  # of the exponent: published ones lie between .41 and .59, and two sd decide
FEWEST_READINGS = 8
FEWEST_FREE = 2  # cells beyond the law's parameters: with one, its residuals are one number


def doubts(plan: Plan) -> list[str]:
    """The warnings of a plan.

    Raises:
        InputError: the expected best size of every budget lies at the edge of its row or outside.
    """
    return [*_rows(plan), *_edges(plan), *_budgets(plan), *_epochs(plan), *_held_out(plan), *_forecast(plan)]


def refuse_weak(plan: Plan) -> None:
    """Refuses a plan whose law would rest on too little, whatever its runs find.

    Raises:
        InputError: fewer readings than FEWEST_READINGS, fewer cells than the additive law's parameters and FEWEST_FREE
            more, or a predicted standard deviation of the exponent of N* above LARGEST_SD (or none: no law at all).
    """
    readings = [(run.counts.macs_per_token, budget) for run in plan.runs for budget in run.budgets_flops]
    free, found = len(set(readings)) - len(PARAMETERS), []
    if len(readings) < FEWEST_READINGS:
        found.append(f"{len(readings)} readings, where {FEWEST_READINGS} are the fewest")
    if free < FEWEST_FREE:
        found.append(
            f"{len(set(readings))} cells of size and budget for {len(PARAMETERS)} parameters, where "
            f"{len(PARAMETERS) + FEWEST_FREE} are the fewest"
        )
    if "additive" in plan.forecast:
        one = plan.forecast["additive"]
        if one is None:
            found.append(f"no exponent by the additive law: {plan.forecast['additive_why_not'].rstrip('.')}")
        elif one["sd_a"] > LARGEST_SD:
            found.append(
                f"a predicted standard deviation of {one['sd_a']:.2g} of the exponent of N*, where {LARGEST_SD:g} is "
                "the largest"
            )
    if found:
        raise InputError(
            "study.budgets_flops, study.widths, study.seeds", f"({'; '.join(found)})",
            "a grid that can tell an exponent",
            "Add budgets, sizes or seeds; or study.force=true plans and runs it as it is.",
        )  # fmt: skip


def _rows(plan: Plan) -> list[str]:
    found = []
    for budget in plan.grid.budgets_flops:
        sizes = plan.sizes(budget)
        if len(sizes) < FEWEST_SIZES:
            widths = sorted({run.width for run in plan.runs if run.counts.macs_per_token in sizes})
            found.append(
                f"budget {budget:.3g}: {len(sizes)} sizes (widths {', '.join(map(str, widths)) or 'none'}); "
                f"{FEWEST_SIZES} or more make a trustworthy minimum"
            )
        elif sizes[-1] / sizes[0] < NARROWEST:
            found.append(
                f"budget {budget:.3g}: sizes span a factor {sizes[-1] / sizes[0]:.1f}, too narrow for a shallow "
                f"minimum; {NARROWEST:g} or more"
            )
    return found


def _edges(plan: Plan) -> list[str]:
    """Budgets with fewer than two sizes on a side of the expected best one, where that is known."""
    if plan.expected is None or not plan.expected.located:
        return []
    found, inside = [], 0
    for budget in plan.grid.budgets_flops:
        best, sizes = float(plan.expected.law.n_opt(budget)), plan.sizes(budget)
        smaller, larger = sum(size < best for size in sizes), sum(size > best for size in sizes)
        inside += smaller > 0 and larger > 0
        if min(smaller, larger) < FEWEST_ASIDE:
            found.append(
                f"budget {budget:.3g}: the expected best size {best:.3g} has {smaller} smaller and {larger} larger "
                f"ones; with fewer than {FEWEST_ASIDE} on a side its minimum may fall on the edge and be rejected"
            )
    if not inside:
        n, c = (
            float(plan.expected.law.n_opt(c))
            for c in (plan.grid.budgets_flops[0], plan.grid.budgets_flops[-1])
        )
        raise InputError(
            "study.widths", f"({len(plan.grid.widths)} widths, none on both sides of any expected best size)",
            f"sizes around {n:.3g} to {c:.3g} multiply-adds per token",
            "Every isoFLOP minimum would lie at an edge. Leave study.widths empty to have them chosen, and widen "
            "study.min_images..study.max_images where these leave them out.",
        )  # fmt: skip
    return found


def _budgets(plan: Plan) -> list[str]:
    first, last = plan.grid.budgets_flops[0], plan.grid.budgets_flops[-1]
    if last / first >= DECADES * (1 - 1e-9):
        return []
    return [f"budgets span a factor {last / first:.3g}: a law wants two decades ({DECADES:g}) or more"]


def _epochs(plan: Plan) -> list[str]:
    if not plan.n_train:
        return []
    epochs = max(run.readings[-1].images for run in plan.runs) / plan.n_train
    if epochs <= MOST_EPOCHS:
        return []
    return [
        f"up to {epochs:.0f} epochs over {plan.n_train} images: the fits hold for this data set repeated, "
        "not for fresh data"
    ]


def _held_out(plan: Plan) -> list[str]:
    if plan.n_held_out is None or plan.n_held_out >= FEWEST_HELD_OUT:
        return []
    return [
        f"{plan.n_held_out} images are held out: every exponent rests on their loss; {FEWEST_HELD_OUT} or more make "
        "it a loss of the data, not of these images"
    ]


def _forecast(plan: Plan) -> list[str]:
    found = []
    for name, label in (("additive", "additive law"), ("isoflop", "isoFLOP minima")):
        if name not in plan.forecast:
            continue
        one = plan.forecast[name]
        if one is None:
            found.append(f"this grid gives no exponent by {label}: {plan.forecast[f'{name}_why_not']}")
        elif one["sd_a"] > LARGEST_SD:
            found.append(
                f"the exponent of N* by {label} will have a standard deviation of {one['sd_a']:.2g}: published ones "
                f"differ by less than twice that. More sizes, a wider span, more budgets or seeds reduce it"
            )
    return found
