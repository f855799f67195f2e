"""Plans and next runs as tables on a terminal."""

from typing import Any

from dit.columns import align
from dit.study.next_runs import AIMS


def print_plan(plan: dict[str, Any]) -> None:
    """Prints a plan: its runs, their price, and what they will tell."""
    budgets = plan["budgets_flops"]
    print(f"study {plan['study']}: images at each budget (FLOPs)")
    heads = ("run", "params", "MACs/token", *(f"{budget:.3g}" for budget in budgets), "epochs", "GPU-hours")
    rows = [heads, *(_row(run, budgets) for run in plan["runs"])]
    print(align(rows, right=range(1, len(heads))))
    print()
    print(_cost(plan))
    for line in _forecast(plan["forecast"]):
        print(line)
    for warning in plan["warnings"]:
        print(f"warning: {warning}")


def print_next_runs(found: dict[str, Any]) -> None:
    """Prints the next runs: what each costs, and the answer's interval once it is made."""
    name = AIMS[found["aim"]]
    print(f"study {found['study']}: {name} at {found['target_flops']:.3g} FLOPs, {found['source']}")
    heads = ("run", "MACs/token", "up to FLOPs", "costs FLOPs", "GPU-hours", f"{name}, 95 % interval then")
    now = ("now", "", "", "", "", _between(found["interval_95"]))
    rows = [
        (
            run["run"],
            f"{run['macs_per_token']:.3g}",
            f"{run['budget_flops']:.3g}",
            f"{run['flops']:.3g}",
            "-" if run["gpu_hours"] is None else f"{run['gpu_hours']:.3g}",
            _between(run["interval_95"]),
        )
        for run in found["runs"]
    ]
    print(align([heads, now, *rows], right=range(1, len(heads))))
    print(f"in all {found['flops']:.3g} training FLOPs; by the delta method, at the noise of the records")
    cells = ",".join(f"[{width},{budget!r},{seed}]" for width, budget, seed in found["cells"])
    print(f"for dit study, in place of study.next: study.cells=[{cells}]")


def _between(interval: list[float]) -> str:
    return f"{interval[0]:.4g} to {interval[1]:.4g}"


def _row(run: dict[str, Any], budgets: list[float]) -> tuple[str, ...]:
    images = {reading["budget_flops"]: f"{reading['images']:,}" for reading in run["readings"]}
    return (
        run["name"],
        f"{run['n_params_total']:,}",
        f"{run['macs_per_token']:.3g}",
        *(images.get(budget, "") for budget in budgets),
        "-" if run["epochs"] is None else f"{run['epochs']:.1f}",
        "-" if run["gpu_hours"] is None else f"{run['gpu_hours']:.3g}",
    )


def _cost(plan: dict[str, Any]) -> str:
    total, cost = f"total {plan['total_flops']:.3g} training FLOPs in {len(plan['runs'])} runs", plan["cost"]
    if cost is None:
        return total + "; no price: set study.hardware and study.mfu, or study.flops_per_second"
    lines = [f"{total}: {_hours(cost)} ({cost['rate']})"]
    named = [
        f"{name} {one['flops']:.3g} FLOPs ({one['gpu_hours']:.3g} GPU-hours)"
        for name, one in cost["beside"].items()
        if one["flops"]
    ]
    if named:
        lines.append(f"beside it, at the same rate: {', '.join(named)}; in all {_hours(cost['whole'])}")
    unknown = [name for name, one in cost["beside"].items() if one["flops"] is None]
    if unknown:
        lines.append(f"not priced: {', '.join(unknown)}, whose compute is not known")
    return "\n".join(lines)


def _hours(cost: dict[str, Any]) -> str:
    devices = cost["devices"]
    busy = f"{cost['days']:.3g} days of {devices} busy device{'s' if devices > 1 else ''}"
    return f"{cost['gpu_hours']:.3g} GPU-hours, {busy}"


def _forecast(found: dict[str, Any]) -> list[str]:
    """The predicted standard deviations, and what they stand on."""
    parts = []
    for name, label in (("additive", "additive law"), ("isoflop", "isoFLOP minima")):
        if found.get(name) is not None:
            parts.append(f"{found[name]['sd_a']:.2g} by {label}")
    if not parts:
        return []
    lines = [f"predicted standard deviation of the exponent of N*: {', '.join(parts)}"]
    if found["additive"] is not None:
        one = found["additive"]
        lines.append(
            f"  of alpha {one['sd_alpha']:.2g}, of beta {one['sd_beta']:.2g}, of L* at ten times the largest budget "
            f"{one['sd_loss_beyond']:.2%}"
        )
    noise = f"noise {found['loss_noise']:.2%} of a reading and {found['run_noise']:.2%} of a run"
    return [*lines, f"  at {noise}; {found['source']}"]
