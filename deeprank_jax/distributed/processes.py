"""Coordination of a job's processes: barriers, agreement and shares of rows."""

from collections.abc import Iterator, Mapping
import contextlib
import json
import pathlib
import time

import jax
from jax.experimental import multihost_utils
import numpy as np

from deeprank_jax import files
from deeprank_jax.distributed import coordinator
from deeprank_jax.distributed.signals import StopRequested
from deeprank_jax.errors import ConfigError

_DISK_SECONDS = 30
_POLL_SECONDS = 0.1


def is_first() -> bool:
    """Returns True for process 0, which writes all files that are written once."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits for all processes without a timeout: the heartbeat detects a death."""
    if jax.process_count() > 1:
        name = f"{coordinator.next_prefix()}/{name}"
        coordinator.store().wait_at_barrier(name, timeout_in_ms=coordinator.DAY_MS)


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """Runs a block in process 0 first, then in the others, which find its files."""
    if not is_first():
        barrier("after the first")
    yield
    if is_first():
        barrier("after the first")


def check_same(values: Mapping[str, object], workdir: pathlib.Path) -> None:
    """Checks that all processes have the same values and share one disk.

    Args:
      values: Values by name, which JSON can hold.
      workdir: Folder that exists and that all processes see.

    Raises:
      ConfigError: A value differs, or the disk is not shared.
    """
    if jax.process_count() == 1:
        return
    store, me = coordinator.store(), jax.process_index()
    prefix = f"{coordinator.next_prefix()}/same"
    values = {**values, "jax.__version__": jax.__version__}
    store.key_value_set(f"{prefix}/{me}", json.dumps(values, default=str))
    barrier("same")
    by_process = {
        process: json.loads(store.blocking_key_value_get(f"{prefix}/{process}", 60_000))
        for process in range(jax.process_count())
    }
    message = _difference(by_process)
    if message:
        raise ConfigError(message)
    with _shared_token(workdir) as token:
        if is_first():
            store.key_value_set(f"{prefix}-disk", token.read_text())
        expected = store.blocking_key_value_get(f"{prefix}-disk", 60_000)
        if not _appears(token, expected):
            raise ConfigError(
                f"{workdir} of process {me} is not that of process 0: give a "
                "--workdir on a disk that all hosts share."
            )
        barrier("token")


@contextlib.contextmanager
def _shared_token(workdir: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives the path of a file that process 0 writes, and removes at the end."""
    token = workdir / ".shared"
    if not is_first():
        yield token
        return
    files.register_scratch(token)
    try:
        files.write_text(token, str(time.time_ns()))
        yield token
    finally:
        token.unlink(missing_ok=True)
        files.unregister_scratch(token)


def _appears(token: pathlib.Path, expected: str) -> bool:
    """Waits for a file's text, as a network disk may be slow; True if it appears."""
    deadline = time.monotonic() + _DISK_SECONDS
    while not (token.exists() and token.read_text() == expected):
        if time.monotonic() > deadline:
            return False
        time.sleep(1.0)
    return True


def _difference(by_process: Mapping[int, Mapping[str, object]]) -> str | None:
    """Returns a message about the first difference, the same in all processes."""
    first = by_process[0]
    for process, values in sorted(by_process.items()):
        for key in sorted(first.keys() | values.keys()):
            if first.get(key) != values.get(key):
                return (
                    f"{key} is {values.get(key)!r} in process {process} and "
                    f"{first.get(key)!r} in process 0: start all processes with the "
                    "same command."
                )
    return None


def own_share(num: int) -> tuple[int, int]:
    """Returns start and end of this process's share of `num` rows."""
    size = -(-num // jax.process_count())
    start = min(jax.process_index() * size, num)
    return start, min(start + size, num)


def gather_shares(rows: np.ndarray) -> np.ndarray:
    """Gathers an array of which each process has its `own_share`.

    All processes have to call it.

    Args:
      rows: `[N, ...]`, rows of this process's share, other values elsewhere; `[N, 0]`
        from a process without any result.
    """
    if jax.process_count() == 1:
        return rows
    num, (start, stop) = len(rows), own_share(len(rows))
    if rows.ndim > 1:
        # A process that could read no image does not know the width.
        width = int(multihost_utils.process_allgather(rows.shape[1]).max())
        rows = rows if rows.shape[1] else np.zeros((num, width), rows.dtype)
    share = np.zeros((-(-num // jax.process_count()), *rows.shape[1:]), rows.dtype)
    share[: stop - start] = rows[start:stop]
    # A copy, so that the caller may write to it.
    return np.array(multihost_utils.process_allgather(share, tiled=True)[:num])


def of_first(rows: np.ndarray) -> np.ndarray:
    """Returns the array of the first process; all have to call it with one shape."""
    if jax.process_count() == 1:
        return rows
    return np.asarray(multihost_utils.broadcast_one_to_all(rows))


@contextlib.contextmanager
def interrupted_together() -> Iterator[None]:
    """Lets a stop request that ends the share of one process end those of all.

    All have to enter the context.

    Raises:
      StopRequested: It was raised in the body of a process.
    """
    is_whole = True
    try:
        yield
    except StopRequested:
        is_whole = False
    if not _all_whole(is_whole):
        raise StopRequested


def _all_whole(is_whole: bool) -> bool:
    """Returns True if all shares are whole; waits for those of all processes.

    A process that waits in a library, as in `all_agree`, would not notice a signal.
    """
    if jax.process_count() == 1:
        return is_whole
    store, prefix = coordinator.store(), f"{coordinator.next_prefix()}/whole"
    store.key_value_set(f"{prefix}/{jax.process_index()}", str(int(is_whole)))
    while len(values := store.key_value_dir_get(prefix)) < jax.process_count():
        time.sleep(_POLL_SECONDS)
    return all(value == "1" for _, value in values)


def all_agree(value: bool) -> bool:
    """Returns True if `value` is true in every process; all have to call it."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.process_allgather(np.asarray(value)).all())
