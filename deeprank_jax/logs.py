"""Logging for people: our own messages, and the warnings of other packages."""

import enum
import logging as python_logging
import os
import pathlib
import re
import sys

from absl import flags, logging

# Control characters but the tab, and those that reverse the order of a line.
_CONTROLS = re.compile(
    r"[\x00-\x08\n-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e"
    r"\u2066-\u2069]"
)


class Style(enum.Enum):
    """Form of a message on standard error."""

    PLAIN = enum.auto()
    # In a file with its time; warnings are marked as such.
    DATED = enum.auto()
    # With level, time, thread and place.
    DETAILED = enum.auto()


def configure_logging(level: int = logging.INFO, *, style: Style = Style.PLAIN) -> None:
    """Shows our messages from a level on, those of other packages from WARNING on.

    Messages go to stderr, above the bars that are drawn there. Orbax, and asyncio for
    it, also log stack traces of failures that we report in a sentence; those are
    hidden, unless details are shown.

    Args:
      level: Lowest level of our messages, as absl's logging has it.
      style: Form of the messages.
    """
    # Without flags of its own, absl would print a warning about them.
    flags.FLAGS.mark_as_parsed()
    logging.use_absl_handler()
    handler = logging.get_absl_handler()
    handler.python_handler.setStream(_Stderr())
    handler.setFormatter(_Formatter(style))
    logging.set_verbosity(level)
    for old in (_is_shown, _is_detail):
        handler.removeFilter(old)
    handler.addFilter(_is_detail if style is Style.DETAILED else _is_shown)


def hide_xla_messages() -> None:
    """Hides what XLA prints, e.g. of a slow compilation; call before importing JAX.

    Errors reach the user as exceptions. A value that the user has set stays.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def escaped(text: str) -> str:
    r"""Returns a text without characters that control a terminal: `\x1b`, `\u202e`.

    A newline becomes `\n`, so that a name cannot look like a message.

    Args:
      text: Text that others chose, e.g. the name of a file.
    """
    return _CONTROLS.sub(lambda x: x[0].encode("unicode_escape").decode(), text)


def escaped_lines(text: str) -> str:
    """Returns a text of several lines, each as by `escaped`."""
    return "\n".join(map(escaped, text.split("\n")))


def counted(num: int, noun: str, plural: str = "") -> str:
    """Returns a number with its noun: `"1 image"`, `"1,200 images"`.

    Args:
      num: Number of things.
      noun: Name of one.
      plural: Name of several; by default the noun with an s.
    """
    return f"{num:,} {noun if num == 1 else plural or f'{noun}s'}"


class _Stderr:
    """The current standard error, on which lines do not break bars."""

    def write(self, text: str) -> None:
        """Writes whole lines, and draws the bars anew below them."""
        if sys.stderr is None:
            return
        tqdm = sys.modules.get("tqdm")  # Else there is no bar.
        if tqdm is None or not sys.stderr.isatty():
            sys.stderr.write(text)
            return
        with tqdm.tqdm.external_write_mode(file=sys.stderr):
            sys.stderr.write(text)

    def close(self) -> None:
        """Leaves standard error open."""

    def flush(self) -> None:
        """Flushes standard error."""
        if sys.stderr is not None:
            sys.stderr.flush()


class _Formatter(python_logging.Formatter):
    """Formatter whose messages cannot control a terminal."""

    def __init__(self, style: Style):
        super().__init__()
        self._form = style
        self._formatter = (
            logging.PythonFormatter()
            if style is Style.DETAILED
            else python_logging.Formatter()
        )

    def format(self, record: python_logging.LogRecord) -> str:
        """Returns the message of a record."""
        text = escaped_lines(self._formatter.format(record))
        if self._form is not Style.DATED:
            return text
        if record.levelno >= python_logging.WARNING:
            text = f"Warning: {text}"
        if sys.stderr is not None and sys.stderr.isatty():
            return text
        return f"{self.formatTime(record, '%Y-%m-%d %H:%M:%S')} {text}"


def _is_shown(entry: python_logging.LogRecord) -> bool:
    """Returns whether a message is for the user."""
    if pathlib.Path(entry.pathname).is_relative_to(pathlib.Path(__file__).parent):
        return True
    from_orbax = "orbax" in entry.pathname or entry.name == "asyncio"
    return entry.levelno >= python_logging.WARNING and not from_orbax


def _is_detail(entry: python_logging.LogRecord) -> bool:
    """Returns whether a message is for a user who wants details."""
    return _is_shown(entry) or entry.levelno >= python_logging.WARNING
