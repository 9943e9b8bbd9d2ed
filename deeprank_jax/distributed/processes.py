"""Coordination of a job's processes: barriers, agreement and shares of rows."""

from collections.abc import Iterator, Mapping
import contextlib
import itertools
import json
import pathlib
import time
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

_DAY_MS = 24 * 60 * 60 * 1000
_DISK_SECONDS = 30
_numbers = itertools.count()


def is_first() -> bool:
    """Returns whether this process writes what is written once."""
    return jax.process_index() == 0


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


def _client() -> Any:
    from jax._src import distributed

    return distributed.global_state.client


def _address() -> str:
    from jax._src import distributed

    return str(distributed.global_state.coordinator_address)


def own_share(num: int) -> tuple[int, int]:
    """Returns where this process's part of `num` rows begins and ends."""
    size = -(-num // jax.process_count())
    start = min(jax.process_index() * size, num)
    return start, min(start + size, num)


def gather_shares(rows: np.ndarray) -> np.ndarray:
    """Puts together what the processes have of an array, each its `own_share`.

    All processes have to call it.

    Args:
      rows: `[N, ...]`, of which only the own share counts; `[N, 0]` if it is nothing.
    """
    if jax.process_count() == 1:
        return rows
    num, (start, stop) = len(rows), own_share(len(rows))
    if rows.ndim > 1:
        # Where nothing could be read, not even the size is known.
        width = int(multihost_utils.process_allgather(rows.shape[1]).max())
        rows = rows if rows.shape[1] else np.zeros((num, width), rows.dtype)
    share = np.zeros((-(-num // jax.process_count()), *rows.shape[1:]), rows.dtype)
    share[: stop - start] = rows[start:stop]
    # A copy, which the caller may write to.
    return np.array(multihost_utils.process_allgather(share, tiled=True)[:num])


def all_agree(value: bool) -> bool:
    """Returns whether it is true for every process; all have to call it."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.process_allgather(np.asarray(value)).all())
