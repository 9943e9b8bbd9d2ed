"""Heartbeats of a job's processes: ends this process, naming the one that died.

Without them the others would wait for the dead process in the next step, some for
minutes and some for ever, or be aborted with a stack trace of JAX.
"""

from collections.abc import Callable
import contextlib
import ctypes
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback as traceback_lib

import jax

from deeprank_jax.distributed import ends, signals
from deeprank_jax.distributed.coordinator import Store
from deeprank_jax.distributed.ends import (
    BEAT_SECONDS,
    CONTINUE,
    GONE,
    PREFIX,
    SILENCE_SECONDS,
)

# Seconds without a beat that are suspicious once something has failed.
_SUSPICIOUS_SECONDS = 3 * BEAT_SECONDS
# All end for one reason; time for a process to report it in its own words.
_GRACE_SECONDS = 3.0
_POLL_SECONDS = 0.1
_KEYS = "deeprank_jax/heartbeat"
# The beginning of the reason of a process that a signal has ended; its number follows.
_SIGNAL = "signal "
# Time that the others have to read why process 0, which keeps the store, ends.
_READ_SECONDS = 5.0
# Time that a thread has to leave JAX's library.
_STOP_SECONDS = 5.0
_abort_handlers: list[object] = []


class Heartbeat:
    """Tells the other processes that this one lives, and ends it if one of them died.

    Two daemon threads: one talks with the store, where it may hang; the other only
    compares times.
    """

    def __init__(self, store: Store, process: int, num_processes: int, address: str):
        """Creates the heartbeat when all processes have joined.

        Args:
          store: Key-value store, which process 0 keeps.
          process: Index of this process.
          num_processes: Number of processes.
          address: Address and port of process 0.
        """
        self._store, self._process, self._num = store, process, num_processes
        self._address = address
        self._last_beat: dict[int, float] = {}
        self._beats: dict[int, str] = {}
        self._reasons: dict[int, str] = {}
        self._stopped = False
        self._wakeup = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def start(self) -> None:
        """Starts the threads, and takes over from JAX's abort."""
        self._reset()
        exit_on_abort(self._explain_abort)
        for target in (self._beat, self._monitor):
            thread = threading.Thread(target=target, name="heartbeat", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stops beats and monitoring: from now on the others may leave.

        A thread that is in JAX's library while Python ends would abort the process.
        """
        self._stopped = True
        self._wakeup.set()
        for thread in self._threads:
            thread.join(_STOP_SECONDS)

    def fail(self, reason: str, *, others_first: bool, traceback: bool = False) -> None:
        """Ends this process with an error, and tells the others.

        Args:
          reason: Reason in one sentence.
          others_first: True if the death of another process may be the cause; it is
            named instead of the reason then.
          traceback: True to print the traceback of the current error.
        """
        if others_first:
            self._end_if_another_died()
        text = traceback_lib.format_exc().rstrip() if traceback else reason
        self._end(text, reason)

    def end_by_signal(self, number: signal.Signals) -> None:
        """Ends this process, and the others, because of a signal to this one."""
        text = f"{PREFIX}{number.name}: stopped; {CONTINUE}"
        self._end(text, f"{_SIGNAL}{int(number)}", status=128 + number)

    def tell_of_signal(self, number: signal.Signals) -> None:
        """Tells the others of a signal that ends this process from outside."""
        if not self._stopped:
            self._tell(f"{_SIGNAL}{int(number)}")

    def _end_if_another_died(self) -> None:
        """Ends this process if another one is silent.

        A few missed beats are enough, as something has failed.
        """
        time.sleep(_SUSPICIOUS_SECONDS + BEAT_SECONDS)
        silent = self._silent(_SUSPICIOUS_SECONDS)
        if silent:
            self._end(self._gone_message(silent[0], _SUSPICIOUS_SECONDS))

    def _beat(self) -> None:
        """Writes this process's beats, and records those of the others."""
        number = 0
        while not self._stopped:
            number += 1
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                self._store.key_value_set(
                    f"{_KEYS}/beats/{self._process}", str(number), True
                )
                beats = self._read("beats")
                self._reasons = self._read("ended")
                now = time.monotonic()
                for process, beat in beats.items():
                    if beat != self._beats.get(process):
                        self._beats[process] = beat
                        self._last_beat[process] = now
            self._wakeup.wait(BEAT_SECONDS)

    def _read(self, kind: str) -> dict[int, str]:
        entries = self._store.key_value_dir_get(f"{_KEYS}/{kind}/")
        return {int(key.rsplit("/", 1)[1]): value for key, value in entries}

    def _monitor(self) -> None:
        """Ends this process when another one is silent or has ended."""
        before = time.monotonic()
        while not self._stopped:
            self._wakeup.wait(1.0)
            now = time.monotonic()
            # This process itself was suspended, so that no beats were read.
            if now - before > SILENCE_SECONDS / 4:
                self._reset()
            before = now
            silent = self._silent(SILENCE_SECONDS)
            if silent and not self._stopped:
                self._end(self._gone_message(silent[0], SILENCE_SECONDS))
            failed = sorted(self._reasons.keys() - {self._process})
            if failed and not self._stopped:
                self._follow(failed[0], self._reasons[failed[0]])

    def _follow(self, process: int, reason: str) -> None:
        """Ends this process because another one has ended with a reason."""
        if not reason.startswith(_SIGNAL):
            time.sleep(_GRACE_SECONDS)
            self._end(self._failed_message(process, reason))
            return
        number = signal.Signals(int(reason.removeprefix(_SIGNAL)))
        text = ends.by_signal(number, process, self._num)
        self._end(text, reason, status=128 + number)

    def _silent(self, seconds: float) -> list[int]:
        """Returns the processes without a beat for that time, the first one first.

        If the store does not answer, that is process 0, which keeps it; nothing is
        known of the others then.
        """
        limit = time.monotonic() - seconds
        if self._last_beat[self._process] < limit and self._process:
            return [0]
        silent = {p for p, beat in self._last_beat.items() if beat < limit}
        # The first to fall silent is the cause; those with a reason have ended because
        # of it, and are not dead.
        return sorted(silent - self._reasons.keys(), key=self._last_beat.__getitem__)

    def _reset(self) -> None:
        """Counts the silence of all processes from now on."""
        now = time.monotonic()
        self._last_beat = dict.fromkeys(range(self._num), now)

    def _gone_message(self, process: int, seconds: float) -> str:
        return ends.gone(process, self._num, ends.not_heard(seconds))

    def _failed_message(self, process: int, reason: str) -> str:
        """Returns the message about another process that ended with a reason."""
        if GONE in reason:  # About a third process: says it all.
            return reason
        reason = re.sub(r"^deeprank \w+: ", "", reason)
        return (
            f"{PREFIX}process {process} of {self._num} has ended, and so does this "
            f"one. Its reason: {reason}"
        )

    def _end(self, text: str, reason: str | None = None, *, status: int = 1) -> None:
        """Ends this process once, with the reason on stderr and for the others."""
        self._lock.acquire()  # Never released: the first caller ends the process.
        ends.say_last_word(text)
        self._tell(reason or text)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        signals.clean_up()
        # Without atexit, where JAX would wait for the others.
        os._exit(status)

    def _tell(self, reason: str) -> None:
        """Tells the others a reason; process 0 waits until they have read it."""
        publish = threading.Thread(target=self._publish, args=(reason,))
        publish.daemon = True  # It hangs if the store has gone.
        publish.start()
        publish.join(BEAT_SECONDS)
        if self._process or len(self._silent(BEAT_SECONDS * 2)) >= self._num - 1:
            return
        # The store ends with process 0. Those that have read it have a reason, too.
        limit = time.monotonic() + _GRACE_SECONDS + _READ_SECONDS
        others = set(range(1, self._num))
        while others - self._reasons.keys() and time.monotonic() < limit:
            time.sleep(_POLL_SECONDS)

    def _publish(self, reason: str) -> None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            key = f"{_KEYS}/ended/{self._process}"
            self._store.key_value_set(key, reason, allow_overwrite=True)

    def _explain_abort(self) -> str | None:
        """Returns a message if process 0 is gone: its connection breaks at once."""
        if not self._process or self._stopped or self._is_reachable():
            return None
        number = signals.received()
        if number is not None:
            return f"{PREFIX}{number.name}: stopped; {CONTINUE}"
        return ends.gone(0, self._num, "its connection broke")

    def _is_reachable(self) -> bool:
        host, port = self._address.rsplit(":", 1)
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
        except OSError:
            return False
        return True


def exit_on_abort(explain: Callable[[], str | None]) -> None:
    """Replaces an abort by JAX with a sentence and exit status 1.

    When its coordinator cannot be reached, JAX calls `abort` within milliseconds, in a
    thread of its own, and has no option against it. A handler set by `signal.signal`
    would come too late: it runs when the main thread is next in Python. Therefore a
    Python function is installed as the C handler of SIGABRT. The signal is synchronous
    here, raised by `abort` in a thread of JAX that does not hold the interpreter's
    lock, and the handler only ends the process, or lets `abort` go on.

    Args:
      explain: Function that returns the sentence, or None for an abort with another
        cause, which then goes on. A later call replaces it.
    """

    def on_abort(number: int) -> None:
        sentence = explain()
        if sentence is not None:
            ends.say_last_word(sentence)
            received = signals.received()
            os._exit(1 if received is None else 128 + received)
        library.signal(signal.SIGABRT, None)  # The default, for `abort` to go on.

    library = ctypes.CDLL(None)
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    library.signal.restype = ctypes.c_void_p
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(on_abort)
    _abort_handlers.append(handler)  # C keeps no reference.
    library.signal(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))
