"""Packages whose public names are imported when they are used."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import import_module
from sys import modules
from typing import Any


def importing(
    package: str, names: Mapping[str, Sequence[str]], submodules: Collection[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and `__dir__` of a package, whose own import then imports no library.

    `names` are the public names by the module that defines them, `submodules` those of the package that are public
    too. The returned `__getattr__` raises `AttributeError` for any other name.
    """
    module_of = {name: module for module, some in names.items() for name in some}

    def find(name: str) -> Any:
        if name in submodules:
            return import_module(f"{package}.{name}")
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(module_of[name]), name)
        setattr(modules[package], name, value)
        return value

    return find, lambda: sorted({*vars(modules[package]), *module_of, *submodules})
