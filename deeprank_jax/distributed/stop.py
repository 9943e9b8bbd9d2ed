"""Stop requests: SIGTERM, noted by one process or agreed on by all."""

import contextlib
import signal
import threading
import time
from types import FrameType
from typing import Any

import jax

from deeprank_jax.distributed.processes import _DAY_MS, _client, _numbers

_POLL_SECONDS = 0.5


class AgreedStop:
    """SIGTERM to any of the processes stops all of them after the same step.

    A process that stopped on its own would leave the others waiting for its part of
    the next step. So that the step never waits for the store while nobody has asked,
    a thread of each process polls it. When it finds that somebody was asked, it bids
    the step that its loop is at, beyond which the loop then does not go until all have
    bid. They stop after the greatest bid, which none of them can have passed. A bid
    needs no step of another process to end, since the threads bid and not the loops.

    Takes the place of `monitor.StopSignal`. Validation is not cut short, as not all
    would leave it at the same batch.
    """

    def __init__(self, client: Any = None):
        """Creates it; all processes have to create equally many.

        Args:
          client: of the store; the job's if not given.
        """
        self.requested = False
        self._client = client or _client()
        self._prefix = f"deeprank_jax/{next(_numbers)}/stop"
        self._asked = False
        self._lock = threading.Lock()
        self._step = -1
        self._bid: int | None = None
        self._stop_at: int | None = None
        self._agreed = threading.Event()

    def __enter__(self) -> "AgreedStop":
        """Starts listening."""
        self._before = signal.signal(signal.SIGTERM, self._note)
        # Left running to the end of the process: the others may need its bid.
        threading.Thread(target=self._listen, name="agreed-stop", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Puts back whoever listened before."""
        signal.signal(signal.SIGTERM, self._before)

    def check(self) -> None:
        """Does nothing: what takes long is ended."""

    def reached(self, step: int) -> bool:
        """Returns whether all processes stop after `step`, which was just taken."""
        with self._lock:
            self._step = step
            held = self._bid is not None and step >= self._bid
        if held:
            self._agreed.wait()
            self.requested = self._stop_at is not None and step >= self._stop_at
        return self.requested

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def _listen(self) -> None:
        # The store ends with the job, and then nobody waits for a bid.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            while not self._client.key_value_dir_get(f"{self._prefix}/asked"):
                if self._asked:
                    self._client.key_value_set(f"{self._prefix}/asked/x", "1", True)
                else:
                    time.sleep(_POLL_SECONDS)
            self._agree()

    def _agree(self) -> None:
        with self._lock:
            self._bid = self._step + 1
        bids = f"{self._prefix}/bids"
        self._client.key_value_set(f"{bids}/{jax.process_index()}", str(self._bid))
        self._stop_at = max(
            int(self._client.blocking_key_value_get(f"{bids}/{process}", _DAY_MS))
            for process in range(jax.process_count())
        )
        self._agreed.set()


class StopRequested(Exception):  # noqa: N818  Not an error.
    """SIGTERM came in the middle of something that can be left."""


class StopSignal:
    """Notes SIGTERM, so that the loop can save and leave at the next step."""

    def __init__(self):
        self.requested = False

    def __enter__(self) -> "StopSignal":
        """Starts listening."""
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        """Puts back whoever listened before."""
        signal.signal(signal.SIGTERM, self._before)

    def reached(self, step: int) -> bool:
        """Returns whether to stop after `step`, which was just taken."""
        return self.requested

    def check(self) -> None:
        """Ends what takes long.

        Raises:
          StopRequested: SIGTERM came.
        """
        if self.requested:
            raise StopRequested

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
