"""Is every process of the job still there? If not, says which is gone, and ends.

Left to themselves the others would wait for the dead one's part of a step, some for
minutes and some for ever, or be aborted with a stack trace of JAX's.
"""

from collections.abc import Callable
import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
import traceback as traceback_lib
from typing import Any

import jax

# Processes beat every so often; not heard of for this long, one is taken for dead.
BEAT_SECONDS, SILENCE_SECONDS = 2.0, 20.0
# After this long without a beat there is reason to wait for the rest.
_SUSPICIOUS_SECONDS = 3 * BEAT_SECONDS
# All end for one reason, each with its own words for it if it has them by then.
_GRACE_SECONDS = 3.0
_PREFIX = "deeprank_jax/watch"
_handlers: list[Any] = []
_GONE = " is gone"
_GO_ON = "start all of them again to go on from the last checkpoint."


class Watch:
    """Tells the other processes that this one lives, and ends it if one of them died.

    Two daemon threads: one talks with the store, where it may hang, the other only
    looks at the clock.
    """

    def __init__(self, client: Any, process: int, num_processes: int, address: str):
        """Creates the watch; all processes are there at that time.

        Args:
          client: of JAX's key-value store, which process 0 keeps.
          process: which this is.
          num_processes: how many there are.
          address: where process 0 listens.
        """
        self._client, self._process, self._num = client, process, num_processes
        self._address = address
        self._heard: dict[int, float] = {}
        self._beats: dict[int, str] = {}
        self._ended: dict[int, str] = {}
        self._stopped = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Starts the threads, and takes over from JAX's abort."""
        self._forgive()
        catch_abort(self._explain_abort)
        for target in (self._beat, self._look):
            threading.Thread(target=target, name="watch", daemon=True).start()

    def stop(self) -> None:
        """Ends the watch: the others may leave."""
        self._stopped = True

    def fail(self, reason: str, *, others_first: bool, traceback: bool = False) -> None:
        """Ends this process with an error, and tells the others.

        Args:
          reason: one sentence.
          others_first: another's death may be the cause, and is what to tell then.
          traceback: of the error that is being handled, is to be printed.
        """
        if others_first:
            self._name_the_silent()
        printed = traceback_lib.format_exc().rstrip() if traceback else reason
        self._end(printed, reason)

    def _name_the_silent(self) -> None:
        """Does not return if another process is dead.

        A few missed beats are enough, now that something went wrong.
        """
        time.sleep(_SUSPICIOUS_SECONDS + BEAT_SECONDS)
        silent = self._silent(_SUSPICIOUS_SECONDS)
        if silent:
            self._end(self._is_gone(silent[0], _SUSPICIOUS_SECONDS))

    def _beat(self) -> None:
        """Writes this process's beats, and notes when those of the others change."""
        number = 0
        while True:
            number += 1
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                self._client.key_value_set(
                    f"{_PREFIX}/beats/{self._process}", str(number), True
                )
                beats = self._read("beats")
                self._ended = self._read("ended")
                now = time.monotonic()
                for process, beat in beats.items():
                    if beat != self._beats.get(process):
                        self._beats[process] = beat
                        self._heard[process] = now
            time.sleep(BEAT_SECONDS)

    def _read(self, kind: str) -> dict[int, str]:
        found = self._client.key_value_dir_get(f"{_PREFIX}/{kind}/")
        return {int(key.rsplit("/", 1)[1]): value for key, value in found}

    def _look(self) -> None:
        """Ends the process when another is silent or has ended."""
        before = time.monotonic()
        while not self._stopped:
            time.sleep(1.0)
            now = time.monotonic()
            # It was this process that slept.
            if now - before > SILENCE_SECONDS / 4:
                self._forgive()
            before = now
            silent = self._silent(SILENCE_SECONDS)
            if silent and not self._stopped:
                self._end(self._is_gone(silent[0], SILENCE_SECONDS))
            failed = sorted(self._ended.keys() - {self._process})
            if failed and not self._stopped:
                time.sleep(_GRACE_SECONDS)
                self._end(self._pass_on(failed[0], self._ended[failed[0]]))

    def _silent(self, seconds: float) -> list[int]:
        """Returns which processes were not heard of for as long.

        If the store does not answer, process 0 is, which keeps it; the others are not
        known of then.
        """
        limit = time.monotonic() - seconds
        if self._heard[self._process] < limit and self._process:
            return [0]
        silent = [p for p, heard in self._heard.items() if heard < limit]
        # The first to fall silent is why others ended, and those that said why are not
        # dead.
        return sorted(set(silent) - self._ended.keys(), key=self._heard.__getitem__)

    def _forgive(self) -> None:
        now = time.monotonic()
        self._heard = dict.fromkeys(range(self._num), now)

    def _is_gone(self, process: int, seconds: float) -> str:
        return (
            f"deeprank_jax: process {process} of {self._num}{_GONE} (not heard of "
            f"for {seconds:.0f} s); {_GO_ON}"
        )

    def _pass_on(self, process: int, reason: str) -> str:
        """Returns what to say when another process ended for a reason."""
        if _GONE in reason:  # A third one, which is as much news here as there.
            return reason
        return (
            f"deeprank_jax: process {process} of {self._num} has ended, and so does "
            f"this one. Its reason: {reason.removeprefix('deeprank_jax: ')}"
        )

    def _end(self, sentence: str, reason: str | None = None) -> None:
        """Ends this process, saying why here and to the others, once."""
        self._lock.acquire()  # For good: the first one to come ends the process.
        os.write(2, f"\n{sentence}\n".encode())
        tell = threading.Thread(target=self._tell, args=(reason or sentence,))
        tell.daemon = True  # It hangs where there is no store any more.
        tell.start()
        tell.join(BEAT_SECONDS)
        if not self._process and len(self._silent(BEAT_SECONDS * 2)) < self._num - 1:
            # The store ends with process 0, and the others are to find out why first.
            time.sleep(_GRACE_SECONDS + 2 * BEAT_SECONDS)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        # Not by way of atexit, where JAX would wait for the others.
        os._exit(1)

    def _tell(self, reason: str) -> None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            key = f"{_PREFIX}/ended/{self._process}"
            self._client.key_value_set(key, reason, allow_overwrite=True)

    def _explain_abort(self) -> str | None:
        """Returns what is wrong if process 0 is gone: its connection breaks at once."""
        if not self._process or self._stopped or self._is_reachable():
            return None
        return (
            f"deeprank_jax: process 0 of {self._num}{_GONE} (its connection broke); "
            f"{_GO_ON}"
        )

    def _is_reachable(self) -> bool:
        host, port = self._address.rsplit(":", 1)
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
        except OSError:
            return False
        return True


def catch_abort(explain: Callable[[], str | None]) -> None:
    """Puts a sentence in the place of an abort of JAX's, until called again.

    When its coordinator cannot be reached JAX calls `abort`, in a thread of its own and
    within milliseconds, and offers no way to keep it from that. A handler of Python's
    would come too late: it runs when the main thread is next in Python.

    Args:
      explain: returns the sentence, or None for an abort of another cause, which then
        goes on.
    """

    def on_abort(number: int) -> None:
        sentence = explain()
        if sentence is not None:
            os.write(2, f"\n{sentence}\n".encode())
            os._exit(1)
        library.signal(signal.SIGABRT, None)  # The default, to which `abort` goes on.

    library = ctypes.CDLL(None)
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    library.signal.restype = ctypes.c_void_p
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(on_abort)
    _handlers.append(handler)  # C keeps no reference.
    library.signal(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))
