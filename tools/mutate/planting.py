"""Put the code of a mutant into the living function, so that whoever holds the function runs it."""

from __future__ import annotations
import __future__

import inspect
from collections.abc import Mapping
from types import FunctionType, ModuleType
from typing import Any

from tools.mutate.mutants import Mutant


def function_of(names: Mapping[str, Any], dotted: str) -> FunctionType:
    """The function with this dotted name: also of a property, of a class method, and inside its decorators."""
    owner, *rest = dotted.split(".")
    value = names[owner]
    for name in rest:
        value = vars(value)[name]
    for wrapped in ("fget", "func", "__func__"):
        value = getattr(value, wrapped, None) or value
    function: FunctionType = inspect.unwrap(value)
    return function


def plant(mutant: Mutant, module: ModuleType) -> None:
    """Give the function the code and the defaults of the mutant."""
    names = dict(vars(module))
    flags = __future__.annotations.compiler_flag  # the package writes annotations that are not evaluated
    exec(compile(mutant.text, str(module.__file__), "exec", flags, dont_inherit=True), names)
    old, new = function_of(vars(module), mutant.function), function_of(names, mutant.function)
    old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__
