"""Stop requests: signals, handled by one process or agreed on by all."""

from collections.abc import Iterator
import contextlib
import math
import os
import signal
import threading
import time
from types import FrameType
from typing import Any, Protocol, Self

import jax

from deeprank_jax.distributed import coordinator, signals
from deeprank_jax.distributed.signals import StopRequested

_POLL_SECONDS = 0.5


class Stop(Protocol):
    """Context in which a signal stops a training loop after a step."""

    @property
    def requested(self) -> bool:
        """True once the loop has to stop."""
        ...

    @property
    def number(self) -> signal.Signals:
        """Signal that stopped it."""
        ...

    def __enter__(self) -> Self:
        """Starts handling the signals."""
        ...

    def __exit__(self, *exception: object) -> None:
        """Restores the handlers from before."""
        ...

    def reached(self, step: int) -> bool:
        """Returns True to stop after `step`, the last one trained."""
        ...

    def check(self) -> None:
        """Interrupts slow work, e.g. validation.

        Raises:
          StopRequested: A signal came, and this process may stop at once.
        """
        ...

    def interruptible(self) -> contextlib.AbstractContextManager[None]:
        """Returns a context in which a signal raises `StopRequested` anywhere.

        Only for a process that may stop at once.
        """
        ...


def create_stop() -> Stop:
    """Creates the stop of a single process or of a job."""
    return StopSignal() if jax.process_count() == 1 else AgreedStop()


class _Handlers:
    """Handlers of the signals while a context lasts, of which the first is kept.

    A second signal, unless it repeats the first at once as those of a closed terminal
    do, has its effect from before the context. Signals that are ignored, as SIGHUP by
    `nohup`, stay so.
    """

    def __init__(self):
        self.first: signal.Signals | None = None
        self.interrupts = False
        self._received = -math.inf
        self._before: dict[signal.Signals, Any] = {}
        self._patience = contextlib.ExitStack()
        self._is_patient = False

    def __enter__(self) -> Self:
        """Starts handling, in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in signals.SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        """Restores the handlers from before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._patience.close()

    def be_patient(self) -> None:
        """Takes the time that saving needs from now on, as there is something to save.

        Before, nothing is lost when the process is ended, e.g. while XLA compiles.
        """
        if not self._is_patient:
            self._is_patient = True
            self._patience.enter_context(signals.patient())

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first, self._received = signal.Signals(number), now
            if self.interrupts:
                self.interrupts = False
                raise StopRequested
        if now - self._received < signals.REPEAT_SECONDS:
            return
        self.__exit__()
        os.kill(os.getpid(), number)


class StopSignal:
    """A signal stops a single process after the current step."""

    def __init__(self):
        self._handlers = _Handlers()

    @property
    def requested(self) -> bool:
        """True once the loop has to stop."""
        return self._handlers.first is not None

    @property
    def number(self) -> signal.Signals:
        """Signal that stopped it."""
        return self._handlers.first or signal.SIGTERM

    def __enter__(self) -> Self:
        """Starts handling the signals."""
        self._handlers.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        """Restores the handlers from before."""
        self._handlers.__exit__()

    def reached(self, step: int) -> bool:
        """Returns True to stop after `step`, the last one trained."""
        self._handlers.be_patient()
        return self.requested

    def check(self) -> None:
        """Interrupts slow work.

        Raises:
          StopRequested: A signal came.
        """
        if self.requested:
            raise StopRequested

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Lets a signal raise `StopRequested` anywhere in the context."""
        self._handlers.interrupts = True
        try:
            self.check()
            yield
        finally:
            self._handlers.interrupts = False


class AgreedStop:
    """A signal to any process of a job stops all of them after the same step.

    A process that stopped on its own would leave the others waiting for it in the
    next step. The training loops never wait for the store before a signal comes: a
    thread of each process polls it. When one of the threads sees the request, each
    process proposes the step after its current one, and its loop does not go beyond
    the proposal until all have proposed. They stop after the greatest proposal, which
    none of them can have passed. The threads, not the loops, write the proposals, so
    that no process waits for a step of another.

    Validation is interrupted between two batches of a process's share, and the others
    are told where all shares end, see `processes.interrupted_together`.
    """

    def __init__(self, store: coordinator.Store | None = None):
        """Creates the stop; all processes have to create equally many.

        Args:
          store: Key-value store of the processes; the job's by default.
        """
        self.requested = False
        self.number = signal.SIGTERM
        self._store = store or coordinator.store()
        self._prefix = f"{coordinator.next_prefix()}/stop"
        self._handlers = _Handlers()
        self._lock = threading.Lock()
        self._step = -1
        self._proposal: int | None = None
        self._stop_at: int | None = None
        self._agreed = threading.Event()

    def __enter__(self) -> Self:
        """Starts handling the signals."""
        self._handlers.__enter__()
        # Runs until the process ends: the others may need its proposal.
        threading.Thread(target=self._poll, name="agreed-stop", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Restores the handlers from before.

        A signal that came too late for all to agree has its effect from before.
        """
        self._handlers.__exit__()
        number = None if self.requested else self._handlers.first
        if number is not None and exception[0] is None:
            os.kill(os.getpid(), number)

    def check(self) -> None:
        """Interrupts slow work.

        Raises:
          StopRequested: A signal came to one of the processes.
        """
        with self._lock:
            if self._proposal is not None:
                raise StopRequested

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Learns of the request, if all leave slow work because of it."""
        try:
            yield
        except StopRequested:
            self._agreed.wait()
            self.requested = True
            raise

    def reached(self, step: int) -> bool:
        """Returns True to stop after `step`, the last one trained."""
        self._handlers.be_patient()
        with self._lock:
            self._step = step
            is_at_proposal = self._proposal is not None and step >= self._proposal
        if is_at_proposal:
            self._agreed.wait()
            self.requested = self._stop_at is not None and step >= self._stop_at
        return self.requested

    def _poll(self) -> None:
        # The store ends with the job; then nobody waits for a proposal.
        key = f"{self._prefix}/requested"
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            while not (requested := self._store.key_value_dir_get(key)):
                if self._handlers.first is not None:
                    number = str(int(self._handlers.first))
                    self._store.key_value_set(f"{key}/signal", number, True)
                else:
                    time.sleep(_POLL_SECONDS)
            self.number = signal.Signals(int(requested[0][1]))
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
