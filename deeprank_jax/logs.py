"""What of all that is logged does a user see?"""

import logging as python_logging
import pathlib

from absl import logging


def show_own(level: int = logging.INFO) -> None:
    """Shows our own messages from a level on, other packages' from WARNING on.

    Orbax, and asyncio for it, also log stack traces of failures, which we report in a
    sentence.

    Args:
      level: of absl's logging.
    """
    logging.set_verbosity(level)
    logging.get_absl_handler().addFilter(_is_shown)


def _is_shown(entry: python_logging.LogRecord) -> bool:
    if pathlib.Path(entry.pathname).is_relative_to(pathlib.Path(__file__).parent):
        return True
    of_orbax = "orbax" in entry.pathname or entry.name == "asyncio"
    return entry.levelno >= python_logging.WARNING and not of_orbax
