"""Huge pages for the memory of a command, which speed up training on CPU.

XLA takes hundreds of megabytes in each step and gives them back, and Linux prepares
each of their pages anew: in a step of the demo 60,000 of 4 KiB, or 600 of 2 MiB. The C
library asks for the larger ones if a variable says so when a process starts, so that
the process is started anew, with the same number and the same arguments.

Where that variable is set already, e.g. to `glibc.malloc.hugetlb=0`, nothing changes.

References:
  https://sourceware.org/glibc/manual/2.36/html_node/Memory-Allocation-Tunables.html.
"""

from collections.abc import Sequence
import os
import pathlib
import re
import signal
import sys
import threading

from deeprank_jax.distributed import signals

_VARIABLE, _SETTING = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
_LEAST_VERSION = (2, 35)
# "always [madvise] never": only programs that ask for huge pages get them.
_KERNEL = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MODULES = ("deeprank_jax.cli", "deeprank_jax.cli.__main__", "deeprank_jax.main")
_SCRIPT = "deeprank"
# Options of Python that the next word belongs to.
_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")
# Numbers of the signals that the process before has held back.
_HELD_BACK = "DEEPRANK_SIGNALS_HELD_BACK"


def restart() -> None:
    """Starts this process anew with huge pages, if that can be of use.

    It returns where it is not: the variable is set, the kernel or the C library gives
    no huge pages on request, or Python was started for more than the command, e.g. as
    a debugger or a notebook.
    """
    tunables = os.environ.get(_VARIABLE, "")
    if _SETTING in tunables or not (_is_alone() and _are_offered()):
        return
    setting = ":".join(filter(None, (tunables, f"{_SETTING}=1")))
    # They wait until the new process can name them; see `accept_signals`.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.SIGNALS)
    held_back = [str(int(x)) for x in signals.SIGNALS if x not in before]
    environment = {
        **os.environ,
        _VARIABLE: setting,
        _HELD_BACK: " ".join(held_back),
    }
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    except OSError:
        pass  # E.g. too little memory; the command works without huge pages.
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def accept_signals() -> None:
    """Takes the signals that came while the process was started anew."""
    held_back = os.environ.pop(_HELD_BACK, "").split()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, map(int, held_back))


def _is_alone() -> bool:
    """Returns whether this process was started for a command and nothing else."""
    is_watched = sys.gettrace() is not None or sys.getprofile() is not None
    is_main_thread = threading.current_thread() is threading.main_thread()
    return is_main_thread and not is_watched and _runs_command(sys.orig_argv[1:])


def _runs_command(words: Sequence[str]) -> bool:
    """Returns whether Python, started with these words, runs the command."""
    remaining = iter(words)
    for word in remaining:
        if word in _WITH_VALUE:
            next(remaining, None)
        elif word == "-m":
            return next(remaining, None) in _MODULES
        elif not word.startswith("-"):
            return pathlib.Path(word).name == _SCRIPT
        elif "m" in word or "c" in word:  # Several in one, e.g. `-Im`.
            return False
    return False


def _are_offered() -> bool:
    """Returns whether kernel and C library give huge pages on request."""
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION")
        mode = _KERNEL.read_text()
    except (AttributeError, ValueError, OSError):  # Not Linux, or another C library.
        return False
    numbers = re.match(r"glibc (\d+)\.(\d+)", version or "")
    if numbers is None or tuple(map(int, numbers.groups())) < _LEAST_VERSION:
        return False
    return bool(sys.executable) and "[madvise]" in mode
