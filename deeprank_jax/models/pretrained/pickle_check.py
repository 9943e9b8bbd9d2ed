"""Check of a pickle's instructions before they are executed.

A short pickle can build tuples whose hash never ends, or is deeper than the stack, and
ask for tables of any size. The check follows how many parts the objects have, and
builds none of them.
"""

from collections.abc import Callable, Mapping
import pickle
import pickletools
from typing import IO, Any, NamedTuple

_MAX_INSTRUCTIONS = 400_000
# Parts and depth of an object that is hashed: a key, or an argument of a call.
_MAX_PARTS, _MAX_DEPTH = 10_000, 100


class _Size(NamedTuple):
    """Number of parts of an object and their depth, repeated ones counted again."""

    num_parts: int = 1
    depth: int = 1


_Stack = list[_Size | None]


def check_pickle(file: IO[bytes]) -> None:
    """Checks a pickle and leaves the file behind it.

    Args:
      file: File, positioned at the pickle.

    Raises:
      pickle.UnpicklingError: It has too many or unknown instructions, or builds
        objects that cannot be hashed in time.
      ValueError: It is no pickle.
    """
    stack: _Stack = []
    memo: dict[int, _Size] = {}
    for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if number > _MAX_INSTRUCTIONS:
            raise pickle.UnpicklingError("it has too many instructions")
        name = opcode.name
        if name in _PUTS:
            # The table of a pickle is as long as its largest number.
            place = len(memo) if argument is None else argument
            if place > number:
                raise pickle.UnpicklingError("it numbers its objects wrongly")
            memo[place] = _top(stack)
        elif name in _GETS:
            stack.append(memo[int(argument or 0)])
        elif name in _RULES:
            _RULES[name](stack)
        elif not opcode.stack_before and len(opcode.stack_after) == 1:
            stack.append(None if name == "MARK" else _Size())
        elif opcode.stack_before or opcode.stack_after:
            raise pickle.UnpicklingError(f"it has the instruction {name}")


def _top(stack: _Stack) -> _Size:
    size = stack[-1]
    if size is None:
        raise pickle.UnpicklingError("it lacks an object")
    return size


def _join(sizes: _Stack) -> _Size:
    parts = [size for size in sizes if size is not None]
    return _Size(
        1 + sum(part.num_parts for part in parts),
        1 + max((part.depth for part in parts), default=0),
    )


def _pop(stack: _Stack, num: int) -> _Stack:
    """Removes the last objects, or those behind the last mark for -1."""
    if num < 0:
        num = stack[::-1].index(None)
    popped = stack[len(stack) - num :]
    if len(popped) < num or None in popped:
        raise pickle.UnpicklingError("it lacks an object")
    del stack[len(stack) - num :]
    return popped


def _pop_marked(stack: _Stack) -> _Stack:
    popped = _pop(stack, -1)
    stack.pop()
    return popped


def _check_hashed(sizes: _Stack) -> None:
    size = _join(sizes)
    if size.num_parts > _MAX_PARTS or size.depth > _MAX_DEPTH:
        raise pickle.UnpicklingError("it nests objects without end")


def _tuple(num: int) -> Callable[[_Stack], None]:
    return lambda stack: stack.append(_join(_pop(stack, num)))


def _tuple_of_marked(stack: _Stack) -> None:
    stack.append(_join(_pop_marked(stack)))


def _call(stack: _Stack) -> None:
    parts = _pop(stack, 2)
    _check_hashed(parts)
    stack.append(_join(parts))


def _call_with_marked(stack: _Stack) -> None:
    parts = _pop_marked(stack)
    _check_hashed(parts)
    stack.append(_join(parts))


def _refer(stack: _Stack) -> None:
    _check_hashed(_pop(stack, 1))
    stack.append(_Size())


def _set_items(stack: _Stack) -> None:
    _add_items(stack, _pop_marked(stack))


def _set_item(stack: _Stack) -> None:
    _add_items(stack, _pop(stack, 2))


def _add_items(stack: _Stack, items: _Stack) -> None:
    for key in items[::2]:
        _check_hashed([key])
    stack.append(_join([*_pop(stack, 1), *items]))


def _append(stack: _Stack) -> None:
    stack.append(_join(_pop(stack, 2)))


def _appends(stack: _Stack) -> None:
    items = _pop_marked(stack)
    stack.append(_join([*_pop(stack, 1), *items]))


_PUTS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_GETS = ("GET", "BINGET", "LONG_BINGET")
_RULES: Mapping[str, Callable[[_Stack], Any]] = {
    "TUPLE": _tuple_of_marked,
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "DICT": _tuple_of_marked,
    "LIST": _tuple_of_marked,
    "STACK_GLOBAL": lambda stack: stack.append(_join(_pop(stack, 2))),
    "REDUCE": _call,
    "INST": _call_with_marked,
    "BINPERSID": _refer,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "APPEND": _append,
    "APPENDS": _appends,
    "BUILD": lambda stack: _pop(stack, 1),
    "STOP": lambda stack: _pop(stack, 1),
}
