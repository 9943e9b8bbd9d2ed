"""JAX's coordinator of a job: the only use of JAX's private API.

JAX has no public way to its key-value store, to the coordinator's address, or to the
detection of a cluster without joining it. A test checks that the installed version
has all three.
"""

from collections.abc import Iterator
import importlib
import itertools
import os
from typing import Any, Protocol

import jax

DAY_MS = 24 * 60 * 60 * 1000
# The only cluster whose mere detection warns or asks a server, and its marker.
_KUBERNETES, _INDEXED_JOB = "K8sCluster", "JOB_COMPLETION_INDEX"
_numbers: Iterator[int] = itertools.count()


class Store(Protocol):
    """Key-value store that process 0 keeps for all processes of a job."""

    def key_value_set(
        self, key: str, value: str, allow_overwrite: bool = False
    ) -> None:
        """Sets a value."""
        ...

    def key_value_dir_get(self, prefix: str) -> list[tuple[str, str]]:
        """Returns the keys with a prefix, and their values."""
        ...

    def blocking_key_value_get(self, key: str, timeout_in_ms: int) -> str:
        """Waits for a value and returns it."""
        ...

    def wait_at_barrier(self, name: str, timeout_in_ms: int) -> None:
        """Waits until all processes wait here."""
        ...


def store() -> Store:
    """Returns the key-value store of this job."""
    return private("distributed", "global_state").client


def address() -> str:
    """Returns the address and port of process 0."""
    return str(private("distributed", "global_state").coordinator_address)


def next_prefix() -> str:
    """Returns a new prefix of keys; the same for all processes, which count alike."""
    return f"deeprank_jax/{next(_numbers)}"


def is_in_cluster() -> bool:
    """Returns True if the environment names other processes."""
    for cluster in private("clusters", "ClusterEnv")._cluster_types:
        if cluster.opt_in_only_method:
            continue
        if cluster.__name__ == _KUBERNETES and _INDEXED_JOB not in os.environ:
            continue
        if cluster.is_env_present():
            return cluster.get_process_count() > 1
    return False


def private(module: str, name: str) -> Any:
    """Returns an object of a module of `jax._src`.

    Raises:
      RuntimeError: The installed JAX has moved it.
    """
    try:
        return getattr(importlib.import_module(f"jax._src.{module}"), name)
    except (ImportError, AttributeError) as error:
        raise RuntimeError(
            f"JAX {jax.__version__} has no jax._src.{module}.{name}, which training "
            "with several processes needs: install a version of JAX that the "
            "requirements of deeprank_jax allow."
        ) from error
