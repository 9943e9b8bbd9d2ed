"""Compilation of programs that run once."""

from collections.abc import Callable
import os
from typing import ParamSpec, TypeVar

import jax

_LEVEL = "xla_backend_optimization_level"

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


def jit_once(
    function: Callable[Arguments, Returned],
) -> Callable[Arguments, Returned]:
    """Compiles a function that is called once, such as the draw of the parameters.

    XLA:CPU optimizes the program less, which takes a quarter of the time; the numbers
    are the same. A level in `XLA_FLAGS` stays.

    Args:
      function: Function of arrays.
    """
    keeps_level = jax.default_backend() != "cpu" or _LEVEL in os.environ.get(
        "XLA_FLAGS", ""
    )
    return jax.jit(function, compiler_options=None if keeps_level else {_LEVEL: 1})
