"""Hash of a relevance, under which results computed from it are cached.

Convention: the hash covers an object's values, its functions and the names that these
use of their own module, not its place in memory.
"""

from collections.abc import Iterator
import functools
import types
from typing import Protocol

import numpy as np

_PLAIN = (int, float, complex, str, bytes, type(None), tuple, list, dict, np.ndarray)


class Digest(Protocol):
    """A hash of `hashlib`."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Adds bytes to the hash."""
        ...


def add_parts(digest: Digest, part: object, visited: set[int] | None = None) -> None:
    """Adds an object to a hash, in an order that is the same in every process.

    Args:
      digest: Hash to add to.
      part: Any object.
      visited: Identities of the objects added before, as a function may refer to
        itself.
    """
    visited = set() if visited is None else visited
    if isinstance(part, np.ndarray):
        digest.update(f"{part.dtype}{part.shape}".encode())
        digest.update(np.ascontiguousarray(part).data)
        return
    if isinstance(part, set | frozenset):
        # The order of strings in a set is another in every process.
        part = sorted(part, key=repr)
    if isinstance(part, tuple | list | dict):
        items = part.items() if isinstance(part, dict) else part
        digest.update(f"{type(part).__name__}{len(part)}".encode())
        for value in items:
            add_parts(digest, value, visited)
        return
    if isinstance(part, types.MethodType):
        add_parts(digest, (part.__func__, part.__self__), visited)
        return
    if isinstance(part, types.ModuleType):
        digest.update(part.__name__.encode())
        return
    if not hasattr(part, "__dict__"):
        digest.update(repr(part).encode())
        return
    if id(part) in visited:
        return
    visited.add(id(part))
    digest.update(f"{type(part).__module__}.{type(part).__qualname__}".encode())
    for name, value in _parts(part):
        digest.update(f"\0{name}=".encode())
        add_parts(digest, value, visited)


def _parts(part: object) -> Iterator[tuple[str, object]]:
    """Yields the parts of an object by name, in order."""
    if isinstance(part, functools.partial):
        yield "partial", (part.func, part.args, part.keywords)
    elif isinstance(part, type):
        yield from _class_parts(part)
    elif isinstance(part, types.FunctionType):
        yield "defaults", (part.__defaults__, part.__kwdefaults__)
        yield "cells", [cell.cell_contents for cell in part.__closure__ or ()]
        yield from _code_parts(part.__code__, part.__globals__)
    else:
        yield "class", type(part)
        yield from sorted(vars(part).items())


def _class_parts(kind: type) -> Iterator[tuple[str, object]]:
    """Yields the methods and constants of a class and its bases."""
    yield "name", f"{kind.__module__}.{kind.__qualname__}"
    for base in kind.__mro__[:-1]:
        for name, value in sorted(vars(base).items()):
            value = getattr(value, "fget", getattr(value, "__func__", value))
            dunder = name.startswith("__") and name != "__call__"
            if not dunder and isinstance(value, (types.FunctionType, *_PLAIN)):
                yield name, value


def _code_parts(
    code: types.CodeType, module: dict[str, object]
) -> Iterator[tuple[str, object]]:
    """Yields a function's code, its literals, and the names it uses of its module."""
    yield "code", code.co_code
    yield "names", code.co_names
    for name in code.co_names:
        value = module.get(name)
        of_module = getattr(value, "__module__", None) == module.get("__name__")
        if isinstance(value, _PLAIN) or of_module:
            yield name, value
    for value in code.co_consts:
        if isinstance(value, types.CodeType):
            yield from _code_parts(value, module)
        else:
            yield "literal", value
