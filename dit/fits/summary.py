"""What ``answer`` says, as text for a terminal."""

from typing import Any

from dit.columns import align
from dit.fits.held import in_words


def print_summary(result: dict[str, Any]) -> None:
    """Prints an answer as text: parameters, allocation, profiles, hold-out, sensitivity, warnings."""
    fit, boot = result["fit"], result["bootstrap"]
    print(
        f"law {result['law']}, {fit['loss']}, {result['points']['n']} points, {result['points']['runs']} runs"
    )
    if "objective" in fit:
        print(f"objective {fit['objective']:.10g}; {fit['agreed']} of {fit['starts']} starts reached it")
    if boot:
        how = f"{boot['method']}, by {boot['resampled']}, seed {boot['seed']}"
        print(f"{boot['converged']} of {boot['draws']} draws converged ({how})")
    if result.get("choice"):
        print(result["choice"]["said"])
    if result.get("weights"):
        print("weights by held-out error: " + ", ".join(f"{k} {v:.3f}" for k, v in result["weights"].items()))
    _table_of("parameter", list(result["parameters"].items()))
    rows = [
        (f"{name} at {row['flops']:.3g}", row[name])
        for row in result["allocation"] or []
        for name in ("n_opt", "d_opt", "loss_opt")
    ]
    if "turning_flops" in result:
        rows.append((f"C* of {result['unique']:.4g} unique", result["turning_flops"]))
    if rows:
        _table_of("allocation (FLOPs)", rows)
    _print_judgement(result)
    _print_sensitivity(result["sensitivity"])
    for warning in result["warnings"]:
        print(f"warning: {warning}")


def _print_judgement(result: dict[str, Any]) -> None:
    print()
    for name, one in result.get("profiles", {}).items():
        low, high = ("-" if end is None else f"{end:.5g}" for end in one["interval_95"])
        print(f"profile of {name}: {one['estimate']:.5g}, 95 % {low} .. {high}, {one['verdict']}")
    for valley in result.get("valleys", []):
        doubt = f" (doubtful: {valley['doubt']})" if valley["doubt"] else ""
        verdict = (
            valley["rejected"]
            or f"N* {valley['n_opt']:.4g}, D* {valley['d_opt']:.4g}; {_fit_of(valley)}{doubt}"
        )
        print(f"budget {valley['flops']:.3g}: {verdict}")
    held = result.get("holdout") or {}
    if "bias" in held:
        print(f"held out {held['what']}: {in_words(held)}")
    elif "predicted" in held:
        pairs = zip(("N*", "D*", "L*"), held["predicted"], held["measured"])
        shown = ", ".join(f"{name} {predicted:.4g} for {measured:.4g}" for name, predicted, measured in pairs)
        print(f"held out {held['budget']:.3g} FLOPs, predicted for measured: {shown}")
    elif "impossible" in held:
        print(f"no hold-out: {held['impossible']}")
    if "lack_of_fit_in_words" in result:
        print(result["lack_of_fit_in_words"])
    _print_in_turn([*(result.get("holdout_by_budget") or []), *(result.get("holdout_by_size") or [])])
    if len(result.get("models", [])) > 1:
        print("laws by held-out error:")
        rows: list[tuple[str, ...]] = [("law", "parameters", "held-out rms", "AIC", "BIC")]
        for one in result["models"]:
            numbers = (_number(one[key]) for key in ("holdout_rms", "aic", "bic"))
            rows.append((one["law"], str(one["parameters"]), *numbers))
        print(align(rows))


def _print_in_turn(held: list[dict[str, Any]]) -> None:
    """Each budget and each size held out, a row each."""
    if not held:
        return
    print("held out in turn:")
    rows: list[tuple[str, ...]] = [
        ("what", "readings", "bias", "rms", "skill: persistence", "constant", "tilt")
    ]
    for one in held:
        numbers = (one["skill_against_persistence"], one["skill_against_constant"])
        skills = ("-" if value is None else f"{value:+.2f}" for value in numbers)
        tilt = "-" if one["tilt"] is None else f"{one['tilt']:+.2%} +- {one['tilt_stderr']:.2%}"
        rows.append((one["what"], str(one["n"]), f"{one['bias']:+.2%}", f"{one['rms']:.2%}", *skills, tilt))
    print(align(rows))


def _fit_of(valley: dict[str, Any]) -> str:
    """How well a parabola fits its points."""
    rms, p_value = valley["rms"], valley["p_value"]
    found = f"parabola of {valley['used']} of {valley['n_points']} points"
    if rms is None:
        return found
    return f"{found}, misses {rms:.2%}" + ("" if p_value is None else f" (p {p_value:.2g})")


def _print_sensitivity(found: dict[str, Any]) -> None:
    sd = "" if found["sd"] is None else f" (bootstrap sd {found['sd']:.4f})"
    print()
    for one in found["leverage"]:
        moved = f"{one['value']:.4f} without {one['without']:.4g}"
        print(f"jackknife sd {one['sd']:.4f} over {one['groups']} {one['by']}s; {moved}")
    if not found["variants"]:
        return
    print(f"exponent {found['exponent']:.4f}{sd} under other choices:")
    rows: list[tuple[str, ...]] = [("choice", "value", "n", "exponent", "shift")]
    for row in found["variants"]:
        shift = row["reason"] if row["shift"] is None else f"{row['shift']:+.4f}"
        rows.append((row["choice"], row["value"], str(row["n"]), _number(row["exponent"]), shift))
    print(align(rows))


def _table_of(title: str, values: list[tuple[str, dict[str, Any]]]) -> None:
    doubted = any(value["doubt"] for _, value in values)
    rows: list[tuple[str, ...]] = [(title, "value", "sd", "80 %", "95 %", *(["doubt"] if doubted else []))]
    for name, value in values:
        spans = [_span(value.get(key)) for key in ("interval_80", "interval_95")]
        doubt = [value["doubt"] or ""] if doubted else []
        rows.append((name, _number(value["value"]), _number(value.get("sd")), *spans, *doubt))
    print()
    print(align(rows))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _span(ends: list[float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:.4g} .. {ends[1]:.4g}"
