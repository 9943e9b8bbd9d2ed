"""What a command printed, without what differs from machine to machine."""

import re

# Lines that only a slow machine has.
_PROGRESS = r"^(.* \.\.\. [\d:]+|\w[\w, ]*: \d+ of \d+ .*)\n"
_TIME = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


def without_times(text):
    """Returns the lines of a log without their times and those of progress."""
    text = re.sub(_TIME, "", text, flags=re.MULTILINE)
    return re.sub(_PROGRESS, "", text, flags=re.MULTILINE)
