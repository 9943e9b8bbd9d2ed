"""Signals that end a command: one sentence, a status of their own, nothing left over.

The first signal raises `Interrupted` in the main thread. A second thread ends the
process if the main thread does not return from a library in time, e.g. while XLA
compiles, or if another signal comes.
"""

import atexit
from collections.abc import Callable, Iterator
import contextlib
import os
import select
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self
import warnings

from deeprank_jax import files
from deeprank_jax.distributed import children

# Ctrl-C, a scheduler, and a terminal that is closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Time within which another signal is taken for the same request.
REPEAT_SECONDS = 1.0
# Time that the main thread has to end the command.
_LIMIT_SECONDS = 4.0
_POLL_SECONDS = 0.1
# A byte that is no number of a signal.
_SWALLOWED = 0

_current: "Ending | None" = None


class Interrupted(KeyboardInterrupt):
    """A signal ends the command.

    Attributes:
      number: The signal.
      status: Exit status of the command.
    """

    def __init__(self, number: int):
        """Creates the exception.

        Args:
          number: The signal.
        """
        super().__init__(signal.Signals(number).name)
        self.number = signal.Signals(number)
        self.status = 128 + number


class StopRequested(BaseException):
    """A signal came during work of a training loop that can be interrupted.

    No `except Exception` on the way, e.g. of a decoder, takes it for its own error.
    """


class Ending:
    """Ends a command on a signal, while the context lasts.

    Signals that are ignored, as SIGHUP by `nohup`, stay so. Outside the main thread
    nothing is handled.
    """

    def __init__(
        self, describe: Callable[[signal.Signals], str], *, owns_process: bool
    ):
        """Creates the context.

        Args:
          describe: Function from the signal to the sentence that the command ends with.
          owns_process: True if the process ends with the command, so that another
            thread may end it. The signals are then handled until it has ended.
        """
        # The first signal, also one that another handler received.
        self.first: signal.Signals | None = None
        self.hooks: list[Callable[[signal.Signals], None]] = []
        self.on_announced: list[Callable[[signal.Signals], None]] = []
        self.num_patient = 0
        self._describe = describe
        self._owns_process = owns_process
        self._is_done = self.has_raised = self._has_failed = False
        self._has_spoken = threading.Lock()
        self._raises_again, self._num_sent_again = False, 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Starts handling the signals."""
        global _current
        if threading.current_thread() is not threading.main_thread():
            return self
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._previous = _current, sys.unraisablehook, sys.excepthook
        _current, sys.unraisablehook = self, self._on_unraisable
        sys.excepthook = self._on_printed
        self._wakeup = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._receive)
        if self._owns_process:
            # Registered before those of JAX, and therefore called after them.
            atexit.register(_ignore_signals)
        threading.Thread(target=self._watch, name="signals", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restores the handlers from before, or ends the process if a signal did."""
        global _current
        del trace
        self._is_done = True
        status = None if self.first is None else 128 + self.first
        is_ended = isinstance(error, SystemExit) and error.code == status
        if kind is not None and self.first and self.has_raised and not is_ended:
            # A library has replaced the exception, e.g. by an ImportError.
            self.say(self.first)
            if not self._owns_process:
                raise SystemExit(status) from error
            _leave(128 + self.first)
        self._has_failed = kind is not None  # The command says why it ends.
        if self._owns_process and isinstance(error, SystemExit) and error.code:
            _end_in_time(error.code if isinstance(error.code, int) else 1)
        # Those of a job leave it together, which JAX sees to.
        if self._owns_process and status is not None and is_ended and not self.hooks:
            _leave(status)
        if self._owns_process or not hasattr(self, "_previous"):
            return
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        _current, sys.unraisablehook, sys.excepthook = self._previous
        os.close(self._write_end)  # Ends the thread.

    def claim_last_word(self) -> bool:
        """Returns True the first time."""
        return self._has_spoken.acquire(blocking=False)

    def say(self, number: signal.Signals) -> None:
        """Prints the sentence, once."""
        if not self._has_failed and self.claim_last_word():
            with contextlib.suppress(OSError):  # The terminal may be gone.
                newline = "\n" if _has_bar() else ""
                os.write(2, f"{newline}{self._describe(number)}\n".encode())
            for hook in self.on_announced:
                hook(number)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        is_first = not self.has_raised or self._raises_again
        if self._is_done or not is_first:
            return
        self.has_raised, self._raises_again = True, False
        self.first = self.first or signal.Signals(number)
        raise Interrupted(self.first)

    def _on_unraisable(self, failure: "sys.UnraisableHookArgs") -> None:
        """Notices that a callback took the exception, e.g. of garbage collection."""
        if isinstance(failure.exc_value, Interrupted):
            os.write(self._write_end, bytes([_SWALLOWED]))
        # The training loop also remembers that it was requested.
        elif not isinstance(failure.exc_value, StopRequested):
            self._previous[1](failure)

    def _on_printed(
        self,
        kind: type[BaseException],
        error: BaseException,
        trace: TracebackType | None,
    ) -> None:
        """Prints an exception, but not the one that a library replaces by its own."""
        if not isinstance(error, Interrupted):
            self._previous[2](kind, error, trace)

    def _watch(self) -> None:
        """Waits for signals, and ends the process when it is time."""
        # Those that the main thread holds back must not reach this one.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        first, received, limit = None, 0.0, 0.0
        while True:
            is_ready = self._wait(None if first is None else _POLL_SECONDS)
            now = time.monotonic()
            numbers = os.read(self._read_end, 64) if is_ready else b""
            if is_ready and not numbers:  # The context has ended.
                os.close(self._read_end)
                return
            for number in numbers:
                if number == _SWALLOWED:
                    self._send_again()
                elif self._num_sent_again:
                    self._num_sent_again -= 1
                elif number in self._before and first is None:
                    first, received, limit = number, now, now + _LIMIT_SECONDS
                    self.first = self.first or signal.Signals(number)
                elif number in self._before and now - received >= REPEAT_SECONDS:
                    self._end(first)
            if self.num_patient or children.are_ending():
                limit = now + _LIMIT_SECONDS
            if first is not None and now > limit:
                self._end(first)

    def _wait(self, seconds: float | None) -> bool:
        """Returns whether a signal has come, after that time at most."""
        return bool(select.select([self._read_end], [], [], seconds)[0])

    def _send_again(self) -> None:
        """Raises the exception once more, after the callback that took it."""
        time.sleep(_POLL_SECONDS)
        ident = threading.main_thread().ident
        if self.first is not None and ident is not None and not self._is_done:
            self._num_sent_again += 1
            self._raises_again = True
            signal.pthread_kill(ident, self.first)

    def _end(self, number: int | None) -> None:
        """Ends the process at once, if it is the command's."""
        if not self._owns_process or number is None:
            return
        for hook in self.hooks:
            with contextlib.suppress(Exception):
                hook(signal.Signals(number))
        self.say(signal.Signals(number))
        clean_up()
        os._exit(128 + number)


def _has_bar() -> bool:
    """Returns whether a progress bar is on the last line of the terminal or log."""
    tqdm = sys.modules.get("tqdm")
    bars = getattr(getattr(tqdm, "tqdm", None), "_instances", ())
    return any(not bar.disable for bar in tuple(bars))


def _leave(status: int) -> None:
    """Ends the process without Python's own end.

    That can crash in a library whose import was interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    clean_up()
    os._exit(status)


def _end_in_time(status: int) -> None:
    """Lets no library hold up the end after an error, nor speak after its sentence.

    A thread may wait for what will never come, as those of Orbax do after a checkpoint
    that could not be written.

    Args:
      status: Exit status.
    """
    sys.unraisablehook = lambda failure: None
    warnings.simplefilter("ignore")
    # Python waits for the threads first.
    have_threads_ended = threading.Event()
    atexit.register(have_threads_ended.set)

    def watch() -> None:
        if not have_threads_ended.wait(_LIMIT_SECONDS):
            _leave(status)

    threading.Thread(target=watch, name="end", daemon=True).start()


def _ignore_signals() -> None:
    """Lets a process that has done its work end, when Python takes its handlers away.

    Else a signal in its last moments would turn a success into a death.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def received() -> signal.Signals | None:
    """Returns the signal that ends this command; None if none has come."""
    return None if _current is None else _current.first


def raised() -> signal.Signals | None:
    """Returns the signal that has raised `Interrupted`; None if none has.

    A library may have replaced that exception by one of its own.
    """
    return received() if _current is not None and _current.has_raised else None


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Gives the main thread the time it needs after a signal, e.g. to save."""
    ending = _current
    if ending is None:
        yield
        return
    ending.num_patient += 1
    try:
        yield
    finally:
        ending.num_patient -= 1


def on_end(hook: Callable[[signal.Signals], None]) -> None:
    """Adds a function that is called before the process is ended from outside.

    Args:
      hook: Function of the signal.
    """
    if _current is not None:
        _current.hooks.append(hook)


def on_announced(hook: Callable[[signal.Signals], None]) -> None:
    """Adds a function that is called when the command says that a signal ends it.

    Args:
      hook: Function of the signal.
    """
    if _current is not None:
        _current.on_announced.append(hook)


def claim_last_word() -> bool:
    """Claims the right to print why this process ends.

    Returns:
      True for the first caller, which must print it.
    """
    return _current is None or _current.claim_last_word()


def clean_up() -> None:
    """Ends the processes that this one has started, and removes scratch files."""
    children.kill_all()
    files.remove_scratch()
