"""Progress of slow operations: a bar, lines in a log, or a function of the caller's.

On a terminal a bar moves each second, also while nothing is done. Where standard error
is a file, a line is logged every half minute instead.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import itertools
import sys
import threading
import time
from typing import Any, ClassVar
import weakref

from absl import logging
import tqdm

# Called with the number of units done, the total and a description.
Progress = Callable[[int, int, str], object]

_BAR_SECONDS, _LINE_SECONDS = 1.0, 30.0
# Time after which an operation of unknown length is named in a log.
_NAME_SECONDS = 5.0
_CLOCK_FORMAT = "{desc} ... {elapsed}"


class Bar(tqdm.tqdm):
    """A bar on a terminal that moves each second; elsewhere a line now and then.

    Attributes:
      ended: Set once the bar is closed.
    """

    def __init__(
        self,
        *args: Any,
        shown: bool = True,
        first_line_seconds: float | None = None,
        **options: Any,
    ):
        """Creates the bar.

        Args:
          *args: Arguments of `tqdm.tqdm`.
          shown: False for neither a bar nor lines.
          first_line_seconds: Time until the first line where there is no terminal;
            None for that between two lines.
          **options: Options of `tqdm.tqdm`, with a description.
        """
        on_terminal = shown and _is_terminal()
        super().__init__(
            *args,
            file=sys.stderr,
            dynamic_ncols=True,
            disable=not on_terminal,
            **options,
        )
        self._title, self._unit = options["desc"], options.get("unit", "it").strip()
        self._values, self._begun = "", (time.monotonic(), self.n)
        self.ended = threading.Event()
        if shown:
            _Bars.open.append(self.ended)
            if on_terminal:
                show, pauses = _redraw, itertools.repeat(_BAR_SECONDS)
            else:
                show = _log
                pauses = itertools.chain(
                    [first_line_seconds or _LINE_SECONDS],
                    itertools.repeat(_LINE_SECONDS),
                )
            threading.Thread(
                target=_show_now_and_then,
                # Without the bar itself, so that one that is left unfinished can go.
                args=(weakref.ref(self), self.ended, show, pauses),
                name="progress",
                daemon=True,
            ).start()

    def __iter__(self) -> Iterator[Any]:
        """Yields the items, and counts them."""
        if not self.disable:
            yield from super().__iter__()
            return
        with contextlib.closing(self):
            for item in self.iterable:
                yield item
                self.n += 1

    def update(self, n: float | None = 1) -> bool | None:
        """Advances by a number of units."""
        if self.disable:
            self.n += n or 0
        return super().update(n)

    def show(self, values: Mapping[str, str]) -> None:
        """Shows values behind the bar, or in the lines.

        Args:
          values: Texts by name.
        """
        self._values = "".join(f", {name} {text}" for name, text in values.items())
        self.set_postfix(values, refresh=False)

    def restart_clock(self) -> None:
        """Excludes the time since the last unit from the speed and the time left."""
        self._begun = time.monotonic(), self.n
        if not self.disable:
            self.unpause()

    def close(self) -> None:
        """Ends the bar."""
        # Not there if the constructor failed.
        if hasattr(self, "ended"):
            self.ended.set()
            with contextlib.suppress(ValueError):
                _Bars.open.remove(self.ended)
        super().close()

    def line(self) -> str:
        """Returns the state as a sentence."""
        begun, done_before = self._begun
        elapsed = time.monotonic() - begun
        if self.total is None:
            return f"{self._title} ... {self.format_interval(elapsed)}"
        units = self._unit
        if not units.endswith("s"):
            units += "es" if units.endswith("ch") else "s"
        text = f"{self._title}: {self.n:,} of {self.total:,} {units}{self._values}"
        num_timed = self.n - done_before
        if num_timed <= 0 or self.n >= self.total:
            return f"{text}."
        seconds = elapsed / num_timed * (self.total - self.n)
        return f"{text}, about {self.format_interval(seconds)} left."


def _show_now_and_then(
    reference: weakref.ref[Bar],
    ended: threading.Event,
    show: Callable[[Bar], object],
    pauses: Iterator[float],
) -> None:
    """Shows a bar after each pause, also if nothing is done, until it has ended."""
    while not ended.wait(next(pauses)):
        bar = reference()
        if bar is None:
            return
        show(bar)
        del bar


def _redraw(bar: Bar) -> None:
    with bar.get_lock():
        if not bar.disable:
            bar.refresh(nolock=True)


def _log(bar: Bar) -> None:
    """Logs the state of a bar, unless a newer one tells more."""
    if _Bars.open[-1:] == [bar.ended]:
        logging.info("%s", bar.line())


@contextlib.contextmanager
def working(
    description: str, *, shown: bool = True, is_named: bool = False
) -> Iterator[None]:
    """Shows that an operation of unknown length lasts.

    Args:
      description: Description of the operation, e.g. `"Compiling the network"`.
      shown: False to show nothing.
      is_named: True if a line has named it already.
    """
    bar = Bar(
        desc=description,
        bar_format=_CLOCK_FORMAT,
        leave=False,
        shown=shown,
        first_line_seconds=None if is_named else _NAME_SECONDS,
    )
    with bar:
        yield


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Shows no bar of this module in the context, and no clock."""
    _Bars.are_hidden = True
    try:
        yield
    finally:
        _Bars.are_hidden = False


class _Bars:
    """State of all bars.

    Attributes:
      are_hidden: True to show none.
      open: Ends of the bars that are shown, in the order of their creation.
    """

    are_hidden = False
    open: ClassVar[list[threading.Event]] = []


def _is_terminal() -> bool:
    """Returns whether bars are drawn."""
    if _Bars.are_hidden:
        return False
    return sys.stderr is not None and sys.stderr.isatty()


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
        with Bar(total=total, desc=description, unit=unit) as bar:
            yield bar.update
        return
    count = 0

    def advance(num: int) -> None:
        nonlocal count
        count += num
        progress(count, total, description)

    progress(0, total, description)
    yield advance
