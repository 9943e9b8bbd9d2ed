"""Huge pages for the memory of a command, a tenth of the time of training on CPU.

XLA takes hundreds of megabytes in each step and gives them back, and Linux prepares
each of their pages anew: in a step of the demo 60,000 of 4 KiB, or 600 of 2 MiB. The C
library asks for the larger ones if a variable says so when a process starts, so that
the process is started anew, with the same number and the same arguments.

Where that variable is set already, e.g. to `glibc.malloc.hugetlb=0`, nothing changes.

References:
  https://sourceware.org/glibc/manual/2.36/html_node/Memory-Allocation-Tunables.html.
"""

import os
import pathlib
import re
import signal
import sys

from deeprank_jax.distributed import signals

_VARIABLE, _SETTING = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
_LEAST_VERSION = (2, 35)
# "always [madvise] never": only programs that ask for huge pages get them.
_KERNEL = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
_PROGRAMS = ("deeprank_jax.cli.__main__", "deeprank_jax.main")
_SCRIPT = "deeprank"


def restart() -> None:
    """Starts this process anew with huge pages, if that can be of use.

    It returns where it is not: the variable is set, the kernel or the C library gives
    no huge pages on request, or the process is not the command's own.
    """
    tunables = os.environ.get(_VARIABLE, "")
    if _SETTING in tunables or not (_is_program() and _are_offered()):
        return
    setting = ":".join(filter(None, (tunables, f"{_SETTING}=1")))
    environment = {**os.environ, _VARIABLE: setting}
    # They wait until the new process can name them; see `accept_signals`.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.SIGNALS)
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def accept_signals() -> None:
    """Takes the signals that came while a process was started anew."""
    if _SETTING in os.environ.get(_VARIABLE, ""):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.SIGNALS)


def _is_program() -> bool:
    """Returns whether this process runs nothing but a command."""
    module = sys.modules["__main__"]
    spec = getattr(module, "__spec__", None)
    if spec is not None:
        return spec.name in _PROGRAMS
    script = getattr(module, "__file__", None)
    return script is not None and pathlib.Path(script).name == _SCRIPT


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
