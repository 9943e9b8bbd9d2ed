"""Logging for people: our own messages, and the warnings of other packages."""

import logging as python_logging
import pathlib

from absl import flags, logging


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
    handler.setFormatter(logging.PythonFormatter() if timestamps else None)
    logging.set_verbosity(level)
    handler.addFilter(_is_shown)


def _is_shown(entry: python_logging.LogRecord) -> bool:
    """Returns whether a message is for the user."""
    if pathlib.Path(entry.pathname).is_relative_to(pathlib.Path(__file__).parent):
        return True
    from_orbax = "orbax" in entry.pathname or entry.name == "asyncio"
    return entry.levelno >= python_logging.WARNING and not from_orbax
