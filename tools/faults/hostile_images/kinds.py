"""Kinds of hostile files by name, each with the function that writes one."""

from collections.abc import Callable
import pathlib

import numpy as np

Rng = np.random.Generator
Make = Callable[[pathlib.Path, Rng], None]
KINDS: dict[str, Make] = {}


def kind(make: Make) -> Make:
    """Registers a function that writes a file by its name."""
    KINDS[make.__name__] = make
    return make


def content(make: Callable[[Rng], bytes]) -> Callable[[Rng], bytes]:
    """Registers a function that returns the content of a file by its name."""

    def write(path: pathlib.Path, rng: Rng) -> None:
        path.write_bytes(make(rng))

    KINDS[make.__name__] = write
    return make
