"""The values of a package: its dataclasses, and the defaults of its functions."""

import dataclasses
import inspect
import pkgutil
from importlib import import_module
from typing import Any


def _members(package: str) -> list[Any]:
    found = [import_module(package)]
    for one in pkgutil.walk_packages(found[0].__path__, f"{package}."):
        found.append(import_module(one.name))
    return [thing for module in found for thing in vars(module).values()
            if getattr(thing, "__module__", None) == module.__name__]  # fmt: skip


def changeable(package: str) -> set[str]:
    """Names of the dataclasses of a package that are not frozen; there are some that are."""
    kinds = [kind for kind in _members(package) if inspect.isclass(kind) and dataclasses.is_dataclass(kind)]
    assert kinds
    return {kind.__name__ for kind in kinds if not kind.__dataclass_params__.frozen}


def defaults(package: str) -> dict[str, dict[str, Any]]:
    """Parameter -> function (or class and method) -> default, of all public ones of a package."""
    found: dict[str, dict[str, Any]] = {}
    for thing in _members(package):
        methods = (
            [m for m in vars(thing).values() if inspect.isfunction(m)] if inspect.isclass(thing) else [thing]
        )
        for function in (method for method in methods if inspect.isfunction(method)):
            for name, parameter in inspect.signature(function).parameters.items():
                if parameter.default is not inspect.Parameter.empty:
                    found.setdefault(name, {})[function.__qualname__] = parameter.default
    return found
