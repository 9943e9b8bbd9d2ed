"""Progress of slow operations: a bar, or a function of the caller's own."""

from collections.abc import Callable, Iterator
import contextlib

import tqdm

# Called with the number of units done, the total and a description.
Progress = Callable[[int, int, str], object]


@contextlib.contextmanager
def reporting(
    total: int, description: str, progress: Progress | None, *, unit: str = " images"
) -> Iterator[Callable[[int], object]]:
    """Gives a function that reports units as done.

    Args:
      total: Number of units.
      description: Description of the operation, e.g. `"embed"`.
      progress: Function that receives the progress; None for a bar on a terminal.
      unit: Unit of the bar.
    """
    if progress is None:
        with tqdm.tqdm(total=total, desc=description, unit=unit, disable=None) as bar:
            yield bar.update
        return
    count = 0

    def advance(num: int) -> None:
        nonlocal count
        count += num
        progress(count, total, description)

    progress(0, total, description)
    yield advance
