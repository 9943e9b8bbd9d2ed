"""Data parallelism: one copy of the train step on every device.

This is the only module that names devices. A step is written for one device and
names its axis with `DATA_AXIS`; `pmap_step` maps it over all of them.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
import itertools
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from deeprank_jax.errors import ConfigError

DATA_AXIS = "data"
Tree = Any  # Arrays in nested containers, as JAX maps over them.


def check_divides(batch_size: int) -> None:
    """Checks that a batch divides evenly over the devices of all hosts.

    Raises:
      ConfigError: It does not, or the processes have different numbers of devices.
    """
    num_devices = jax.device_count()
    if batch_size % num_devices:
        below = batch_size // num_devices * num_devices
        choices = " or ".join(str(x) for x in (below, below + num_devices) if x)
        raise ConfigError(
            f"config.batch_size={batch_size} does not divide over {num_devices} "
            f"devices; choose {choices}."
        )
    if jax.local_device_count() * jax.process_count() != num_devices:
        raise ConfigError(
            f"Process {jax.process_index()} has {jax.local_device_count()} of the "
            f"{num_devices} devices of {jax.process_count()} processes: give all "
            "processes the same number of devices."
        )


def pmap_step(step_fn: Callable[..., Tree]) -> Callable[..., Tree]:
    """Compiles `step_fn(state, batch)` and maps it over all devices.

    Every device has a whole copy of the state; each array of the batch is
    `[local_devices, per_device, ...]`. The old state's buffers are reused.

    Args:
      step_fn: Train step. Its results must be equal on all devices, e.g. by
        `jax.lax.pmean` over `DATA_AXIS`; those of the first device are returned.
    """
    return jax.pmap(
        step_fn,
        axis_name=DATA_AXIS,
        in_axes=(None, 0),
        out_axes=None,
        donate_argnums=0,
    )


def pmap_embed(
    embed_fn: Callable[[Tree, jax.Array], jax.Array],
) -> Callable[[Tree, np.ndarray], np.ndarray]:
    """Compiles `embed_fn(state, images)` and maps it over the local devices.

    Processes do not wait for each other: each may embed any number of images.

    Returns:
      A function from `(state, images [B, ...])` to embeddings `[B, D]`, both on the
      host; a batch that does not divide over the devices is padded.
    """
    mapped = jax.pmap(
        embed_fn,
        axis_name=DATA_AXIS,
        in_axes=(None, 0),
        devices=jax.local_devices() if jax.process_count() > 1 else None,
    )

    def embed(state: Tree, images: np.ndarray) -> np.ndarray:
        padding = -len(images) % jax.local_device_count()
        padded = np.pad(images, ((0, padding), *((0, 0),) * (images.ndim - 1)))
        embeddings = np.asarray(mapped(state, split_over_devices(padded)))
        return embeddings.reshape(-1, embeddings.shape[-1])[: len(images)]

    return embed


def for_devices(array: np.ndarray) -> np.ndarray:
    """Returns an array of the same shape in the 32-bit type that devices compute in."""
    integral = np.issubdtype(array.dtype, np.integer)
    return array.astype(np.int32 if integral else np.float32)


def replicate(state: Tree) -> Tree:
    """Puts a whole copy of `state` on every local device.

    Start from this: with a state on one device, both the first and the second step
    would have to be compiled.
    """
    return jax.device_put(state, jax.NamedSharding(_local_mesh(), jax.P()))


def split_over_devices(batch: Tree) -> Tree:
    """Puts host arrays `[B, ...]` on local devices as `[local_devices, B / n, ...]`.

    Raises:
      ValueError: The leading axis does not divide by the number of local devices.
    """
    sharding = jax.NamedSharding(_local_mesh(), jax.P(DATA_AXIS))
    num_devices = jax.local_device_count()

    def put(x: np.ndarray) -> jax.Array:
        if len(x) % num_devices:
            raise ValueError(
                f"A batch of {len(x)} does not divide over {num_devices} devices."
            )
        return jax.device_put(x.reshape(num_devices, -1, *x.shape[1:]), sharding)

    return jax.tree.map(put, batch)


def prefetch(
    batches: Iterable[Tree], to_device: Callable[[Tree], Tree], size: int = 2
) -> Iterator[tuple[Tree, Tree]]:
    """Yields each batch beside its device arrays, `size` transfers ahead of use.

    Args:
      batches: Host batches. Each must have fresh memory: on CPU a device array may
        alias it.
      to_device: Function that starts the transfer of a batch, e.g. by
        `split_over_devices`.
      size: Number of transfers in flight, at least 1.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}.")
    on_device = ((batch, to_device(batch)) for batch in batches)
    queue = collections.deque(itertools.islice(on_device, size))
    while queue:
        yield queue.popleft()
        queue.extend(itertools.islice(on_device, 1))


def own_devices(rows: np.ndarray) -> np.ndarray:
    """Returns the rows `[devices, ...]` of this process's devices."""
    process = jax.process_index()
    return rows[[device.process_index == process for device in jax.devices()]]


def to_global(state: Tree) -> Tree:
    """Returns a `replicate`d state as one array over the devices of all processes."""
    if jax.process_count() == 1:
        return state
    mesh = jax.sharding.Mesh(np.array(jax.devices()), (DATA_AXIS,))
    return multihost_utils.host_local_array_to_global_array(state, mesh, jax.P())


def to_local(state: Tree) -> Tree:
    """Returns the `replicate`d state of a global one: the inverse of `to_global`."""
    if jax.process_count() == 1:
        return state
    mesh = jax.sharding.Mesh(np.array(jax.devices()), (DATA_AXIS,))
    return multihost_utils.global_array_to_host_local_array(state, mesh, jax.P())


def _local_mesh() -> jax.sharding.Mesh:
    return jax.sharding.Mesh(np.array(jax.local_devices()), (DATA_AXIS,))
