"""Is a relevance the one that it was when something was computed of it?

Convention: what an object is made of counts, its values, its functions and what they
use of their own module, not where it lies in memory.
"""

from collections.abc import Iterator
import functools
import types
from typing import Any

import numpy as np

_PLAIN = (int, float, complex, str, bytes, type(None), tuple, list, dict, np.ndarray)


def add_parts(digest: Any, part: Any, seen: set[int] | None = None) -> None:
    """Adds an object to a hash, in an order and in words that do not change.

    Args:
      digest: of `hashlib`.
      part: any object.
      seen: what was added before, as a function may lead back to itself.
    """
    seen = set() if seen is None else seen
    if isinstance(part, np.ndarray):
        digest.update(f"{part.dtype}{part.shape}".encode())
        digest.update(np.ascontiguousarray(part).data)
        return
    if isinstance(part, set | frozenset):
        # Strings come in another order in every process.
        part = sorted(part, key=repr)
    if isinstance(part, tuple | list | dict):
        items = part.items() if isinstance(part, dict) else part
        digest.update(f"{type(part).__name__}{len(part)}".encode())
        for value in items:
            add_parts(digest, value, seen)
        return
    if isinstance(part, types.MethodType):
        add_parts(digest, (part.__func__, part.__self__), seen)
        return
    if isinstance(part, types.ModuleType):
        digest.update(part.__name__.encode())
        return
    if not hasattr(part, "__dict__"):
        digest.update(repr(part).encode())
        return
    if id(part) in seen:
        return
    seen.add(id(part))
    digest.update(f"{type(part).__module__}.{type(part).__qualname__}".encode())
    for name, value in _parts(part):
        digest.update(f"\0{name}=".encode())
        add_parts(digest, value, seen)


def _parts(part: Any) -> Iterator[tuple[str, Any]]:
    """Yields what an object is made of, by name and in order."""
    if isinstance(part, functools.partial):
        yield "partial", (part.func, part.args, part.keywords)
    elif isinstance(part, type):
        yield from _of_class(part)
    elif hasattr(part, "__code__"):
        yield "defaults", (part.__defaults__, part.__kwdefaults__)
        yield "cells", [cell.cell_contents for cell in part.__closure__ or ()]
        yield from _of_code(part.__code__, part.__globals__)
    else:
        yield "class", type(part)
        yield from sorted(vars(part).items())


def _of_class(kind: type) -> Iterator[tuple[str, Any]]:
    """Yields the methods and constants of a class and of those it is made from."""
    yield "name", f"{kind.__module__}.{kind.__qualname__}"
    for base in kind.__mro__[:-1]:
        for name, value in sorted(vars(base).items()):
            value = getattr(value, "fget", getattr(value, "__func__", value))
            dunder = name.startswith("__") and name != "__call__"
            if not dunder and isinstance(value, (types.FunctionType, *_PLAIN)):
                yield name, value


def _of_code(code: types.CodeType, module: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields what a function does, its literals, and what it uses of its module."""
    yield "code", code.co_code
    yield "names", code.co_names
    for name in code.co_names:
        value = module.get(name)
        of_module = getattr(value, "__module__", None) == module.get("__name__")
        if isinstance(value, _PLAIN) or of_module:
            yield name, value
    for value in code.co_consts:
        if isinstance(value, types.CodeType):
            yield from _of_code(value, module)
        else:
            yield "literal", value
