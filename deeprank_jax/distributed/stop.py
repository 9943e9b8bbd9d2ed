"""Stop requests: SIGTERM, handled by one process or agreed on by all."""

import contextlib
import signal
import threading
import time
from types import FrameType
from typing import Protocol, Self

import jax

from deeprank_jax.distributed import coordinator

_POLL_SECONDS = 0.5


class Stop(Protocol):
    """Context in which SIGTERM stops a training loop after a step.

    Attributes:
      requested: True once the loop has to stop.
    """

    requested: bool

    def __enter__(self) -> Self:
        """Starts handling SIGTERM."""
        ...

    def __exit__(self, *exception: object) -> None:
        """Restores the handler from before."""
        ...

    def reached(self, step: int) -> bool:
        """Returns True to stop after `step`, the last one trained."""
        ...

    def check(self) -> None:
        """Interrupts slow work, e.g. validation.

        Raises:
          StopRequested: SIGTERM came, and this process may stop at once.
        """
        ...


class StopRequested(Exception):  # noqa: N818  Not an error.
    """SIGTERM came during work that can be interrupted."""


def create_stop() -> Stop:
    """Creates the stop of a single process or of a job."""
    return StopSignal() if jax.process_count() == 1 else AgreedStop()


class StopSignal:
    """SIGTERM stops a single process after the current step."""

    def __init__(self):
        self.requested = False

    def __enter__(self) -> Self:
        """Starts handling SIGTERM."""
        self._before = signal.signal(signal.SIGTERM, self._request)
        return self

    def __exit__(self, *exception: object) -> None:
        """Restores the handler from before."""
        signal.signal(signal.SIGTERM, self._before)

    def reached(self, step: int) -> bool:
        """Returns True to stop after `step`, the last one trained."""
        return self.requested

    def check(self) -> None:
        """Interrupts slow work.

        Raises:
          StopRequested: SIGTERM came.
        """
        if self.requested:
            raise StopRequested

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


class AgreedStop:
    """SIGTERM to any process of a job stops all of them after the same step.

    A process that stopped on its own would leave the others waiting for it in the
    next step. The training loops never wait for the store before SIGTERM comes: a
    thread of each process polls it. When one of the threads sees the request, each
    process proposes the step after its current one, and its loop does not go beyond
    the proposal until all have proposed. They stop after the greatest proposal, which
    none of them can have passed. The threads, not the loops, write the proposals, so
    that no process waits for a step of another.

    Validation is not interrupted, as not all would leave it at the same batch.
    """

    def __init__(self, store: coordinator.Store | None = None):
        """Creates the stop; all processes have to create equally many.

        Args:
          store: Key-value store of the processes; the job's by default.
        """
        self.requested = False
        self._store = store or coordinator.store()
        self._prefix = f"{coordinator.next_prefix()}/stop"
        self._has_signal = False
        self._lock = threading.Lock()
        self._step = -1
        self._proposal: int | None = None
        self._stop_at: int | None = None
        self._agreed = threading.Event()

    def __enter__(self) -> Self:
        """Starts handling SIGTERM."""
        self._before = signal.signal(signal.SIGTERM, self._request)
        # Runs until the process ends: the others may need its proposal.
        threading.Thread(target=self._poll, name="agreed-stop", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Restores the handler from before."""
        signal.signal(signal.SIGTERM, self._before)

    def check(self) -> None:
        """Does nothing: slow work is finished first."""

    def reached(self, step: int) -> bool:
        """Returns True to stop after `step`, the last one trained."""
        with self._lock:
            self._step = step
            is_at_proposal = self._proposal is not None and step >= self._proposal
        if is_at_proposal:
            self._agreed.wait()
            self.requested = self._stop_at is not None and step >= self._stop_at
        return self.requested

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._has_signal = True

    def _poll(self) -> None:
        # The store ends with the job; then nobody waits for a proposal.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            while not self._store.key_value_dir_get(f"{self._prefix}/requested"):
                if self._has_signal:
                    self._store.key_value_set(f"{self._prefix}/requested/x", "1", True)
                else:
                    time.sleep(_POLL_SECONDS)
            self._agree()

    def _agree(self) -> None:
        with self._lock:
            self._proposal = self._step + 1
        key, me = f"{self._prefix}/proposals", jax.process_index()
        self._store.key_value_set(f"{key}/{me}", str(self._proposal))
        self._stop_at = max(
            int(self._store.blocking_key_value_get(f"{key}/{i}", coordinator.DAY_MS))
            for i in range(jax.process_count())
        )
        self._agreed.set()
