"""Several processes that train one model: how they meet, wait, stop and notice a death.

Everything goes through the key-value store that JAX's coordinator, in process 0, keeps
for the job. A plain single process meets nobody, and all here does nothing for it.
"""

from collections.abc import Iterator, Mapping
import contextlib
import itertools
import json
import os
import pathlib
import signal
import threading
import time
from types import FrameType
from typing import Any

import jax

from deeprank_jax.watch import Watch, catch_abort

_STOPPED = 128 + signal.SIGTERM
_DAY_MS = 24 * 60 * 60 * 1000
_POLL_SECONDS = 0.5
_JOIN_SECONDS = 300
_DISK_SECONDS = 30
# What leads to the only cluster whose mere detection warns or asks a server.
_KUBERNETES, _INDEXED_JOB = "K8sCluster", "JOB_COMPLETION_INDEX"

_numbers = itertools.count()


class CannotJoinError(RuntimeError):
    """The other processes are not there, or it is not said where they are."""


def is_first() -> bool:
    """Returns whether this process writes what is written once."""
    return jax.process_index() == 0


@contextlib.contextmanager
def job(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> Iterator[None]:
    """Makes this process part of a job while the context lasts, if there is one.

    The job is what the arguments say, or what JAX finds in the environment: Slurm with
    several tasks, a Kubernetes indexed job, a Cloud TPU pod, Open MPI.

    Whoever leaves with an error tells the others why, and they end, too. Whoever
    leaves without one waits for the others.

    Args:
      coordinator: address and port of process 0.
      num_processes: how many there are; 1 is a process of its own, whatever the
        environment says.
      process_id: which this is, from 0.

    Raises:
      CannotJoinError: only some of the arguments are given, or process 0 is not
        there.
    """
    if not _join(coordinator, num_processes, process_id):
        yield
        return
    watch = Watch(_client(), jax.process_index(), jax.process_count(), _address())
    watch.start()
    try:
        yield
    except SystemExit as end:
        if end.code not in (None, 0, _STOPPED):
            # What is not wrong with the config may have come of another's death.
            alone = isinstance(end.__context__, ValueError)
            watch.fail(str(end.code), others_first=not alone)
        _part(watch)
        raise
    except BaseException as error:
        watch.fail(
            f"{type(error).__name__}: {error}", others_first=True, traceback=True
        )
    else:
        _part(watch)


def _part(watch: Watch) -> None:
    """Waits for all, so that none takes the end of another for its death."""
    barrier("end")
    watch.stop()


def _join(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> bool:
    """Returns whether there is a job; this process is in it then."""
    given = (coordinator, num_processes, process_id)
    if num_processes == 1 or (given == (None, None, None) and not _is_in_cluster()):
        return False
    by_hand = None not in given
    if not by_hand and given != (None, None, None):
        raise CannotJoinError(
            "--coordinator_address, --num_processes and --process_id go together: give "
            "all three, or none where Slurm, Kubernetes or a TPU pod says them."
        )
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Its handler of SIGTERM would be beside ours, and cannot be taken away again.
    jax.config.update("jax_enable_preemption_service", False)
    where = coordinator or "the coordinator"
    message = (
        f"Cannot join the other processes at {where}: check that all were started with "
        "the same address and number, and reach process 0 there."
    )
    catch_abort(lambda: f"deeprank_jax: {message}")
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            cluster_detection_method="deactivate" if by_hand else None,
            initialization_timeout=_JOIN_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        cause = " ".join(str(error).split())[:200]
        raise CannotJoinError(f"{message} The cause: {cause}") from error
    return jax.process_count() > 1


def _is_in_cluster() -> bool:
    """Returns whether the environment says that there are other processes."""
    from jax._src import clusters

    for cluster in clusters.ClusterEnv._cluster_types:
        if cluster.opt_in_only_method:
            continue
        if cluster.__name__ == _KUBERNETES and _INDEXED_JOB not in os.environ:
            continue
        if cluster.is_env_present():
            return cluster.get_process_count() > 1
    return False


def barrier(name: str) -> None:
    """Waits until every process is here; however long, for the watch sees a death."""
    if jax.process_count() > 1:
        name = f"deeprank_jax/{next(_numbers)}/{name}"
        _client().wait_at_barrier(name, timeout_in_ms=_DAY_MS)


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """Lets process 0 through at once and the others after it, to find what it wrote."""
    if not is_first():
        barrier("after the first")
    yield
    if is_first():
        barrier("after the first")


def check_same(values: Mapping[str, Any], workdir: pathlib.Path) -> None:
    """Checks that all processes are to do the same, on one disk.

    Args:
      values: what has to be the same, by name, as JSON could have it.
      workdir: a folder that is there, and that all see.

    Raises:
      ValueError: they are not.
    """
    if jax.process_count() == 1:
        return
    prefix, me = f"deeprank_jax/{next(_numbers)}/same", jax.process_index()
    values = {**values, "jax.__version__": jax.__version__}
    _client().key_value_set(f"{prefix}/{me}", json.dumps(values, default=str))
    token = workdir / ".shared"
    if is_first():
        token.write_text(str(time.time_ns()))
        _client().key_value_set(f"{prefix}-disk", token.read_text())
    barrier("same")
    written = {
        process: json.loads(
            _client().blocking_key_value_get(f"{prefix}/{process}", 60_000)
        )
        for process in range(jax.process_count())
    }
    message = _difference(written)
    if message:
        raise ValueError(message)
    expected = _client().blocking_key_value_get(f"{prefix}-disk", 60_000)
    if not _appears(token, expected):
        raise ValueError(
            f"{workdir} of process {me} is not that of process 0: give a --workdir on "
            "a disk that all hosts share."
        )
    barrier("seen")
    if is_first():
        token.unlink()


def _appears(token: pathlib.Path, expected: str) -> bool:
    """Returns whether a file says what is expected; a network's disk may take time."""
    deadline = time.monotonic() + _DISK_SECONDS
    while not (token.exists() and token.read_text() == expected):
        if time.monotonic() > deadline:
            return False
        time.sleep(1.0)
    return True


def _difference(written: Mapping[int, Mapping[str, Any]]) -> str | None:
    """Returns the first difference to process 0 in words, the same for all."""
    first = written[0]
    for process, values in sorted(written.items()):
        for key in sorted(first.keys() | values.keys()):
            if first.get(key) != values.get(key):
                return (
                    f"{key} is {values.get(key)!r} in process {process} and "
                    f"{first.get(key)!r} in process 0: start all processes with the "
                    "same command."
                )
    return None


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


def _client() -> Any:
    from jax._src import distributed

    return distributed.global_state.client


def _address() -> str:
    from jax._src import distributed

    return str(distributed.global_state.coordinator_address)
