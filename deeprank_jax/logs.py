"""Logging for people: our own messages, and the warnings of other packages."""

import logging as python_logging
import pathlib
import re

from absl import flags, logging

# Control characters but the tab, and those that reverse the order of a line.
_CONTROLS = re.compile(
    r"[\x00-\x08\n-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e"
    r"\u2066-\u2069]"
)


def configure_logging(level: int = logging.INFO, *, timestamps: bool = False) -> None:
    """Shows our messages from a level on, those of other packages from WARNING on.

    Messages go to stderr. Orbax, and asyncio for it, also log stack traces of failures
    that we report in a sentence; those are hidden.

    Args:
      level: Lowest level of our messages, as absl's logging has it.
      timestamps: True to begin each message with its level, time and place.
    """
    # Without flags of its own, absl would print a warning about them.
    flags.FLAGS.mark_as_parsed()
    logging.use_absl_handler()
    handler = logging.get_absl_handler()
    handler.setFormatter(_Formatter(timestamps=timestamps))
    logging.set_verbosity(level)
    handler.addFilter(_is_shown)


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


class _Formatter(python_logging.Formatter):
    """Formatter whose messages cannot control a terminal."""

    def __init__(self, *, timestamps: bool):
        super().__init__()
        self._formatter = (
            logging.PythonFormatter() if timestamps else python_logging.Formatter()
        )

    def format(self, record: python_logging.LogRecord) -> str:
        """Returns the message of a record."""
        return escaped_lines(self._formatter.format(record))


def _is_shown(entry: python_logging.LogRecord) -> bool:
    """Returns whether a message is for the user."""
    if pathlib.Path(entry.pathname).is_relative_to(pathlib.Path(__file__).parent):
        return True
    from_orbax = "orbax" in entry.pathname or entry.name == "asyncio"
    return entry.levelno >= python_logging.WARNING and not from_orbax
