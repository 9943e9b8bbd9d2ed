"""The state of other processes, from Linux's /proc."""

import pathlib


def is_running(pid: int | str) -> bool:
    """Returns whether a process exists and has not ended.

    One that has ended may be listed until its parent reads its status.
    """
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"
