"""Numbers and settings as a page shows them: digits that mean something, and no Python."""

import ast
import math
import re
from typing import Any

from dit.report.style import engineering

IN_FULL = 10**9  # whole numbers below it are written out


def number_text(value: Any, digits: int = 4) -> str:
    """A number for a person: whole ones in full with commas, others to ``digits``, None as a dash."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, (bool, str)):
        return str(value)
    if isinstance(value, int) and abs(value) < IN_FULL:
        return f"{value:,}"
    if value != 0 and not 1e-3 <= abs(value) < 1e4:
        return engineering(value, digits)
    if abs(value) >= 1e3:
        return f"{value:,.0f}"
    text = f"{value:.{digits}g}" if float(value).is_integer() or abs(value) < 0.01 else f"{value:#.{digits}g}"
    return text.rstrip(".")


def setting_text(value: Any) -> str:
    """A setting in words: ``ClassifierFree(channels=None, scale=1.5)`` is "classifier free, scale 1.5"; None is "none".

    Args:
        value: a text as a configuration writes it, a number, a list, or a dictionary of those.
    """
    if value is None:
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {setting_text(one)}" for key, one in sorted(value.items())) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(setting_text(one) for one in value) or "none"
    if not isinstance(value, str):
        return number_text(value)
    try:
        return _of_expression(ast.parse(value, mode="eval").body) or value
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return value


def _of_expression(node: ast.expr) -> str | None:
    """Words for a parsed call, or a sum of names as objectives are written; None for anything else."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        name = re.sub(r"(?<=[a-z])([A-Z])(?=[a-z])", lambda found: " " + found[1].lower(), node.func.id)
        name = name.lower() if " " in name else name
        parts = [_of_argument(one.arg, one.value) for one in node.keywords]
        return ", ".join([name, *(_of_argument(None, one) for one in node.args), *filter(None, parts)])
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = [_of_expression(side) or ast.unparse(side) for side in (node.left, node.right)]
        return " + ".join(sides)
    return None


def _of_argument(name: str | None, node: ast.expr) -> str:
    """A keyword's name and value; nothing where the value is None."""
    if isinstance(node, ast.Constant) and node.value is None:
        return ""
    inner = _of_expression(node)
    value = f"({inner})" if inner else ast.unparse(node).strip("[]'\"")
    return f"{name} {value}" if name else value
