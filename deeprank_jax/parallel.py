"""What runs where: one copy of the step on every device of this host.

This is the only module that names devices. A step is written for one device and
names its axis with `DATA_AXIS`; `pmap_step` maps it over all of them.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
import itertools
import os
import pathlib
from typing import Any

import jax
import numpy as np

DATA_AXIS = "data"

_CACHE_BYTES = 4 * 2**30  # What was not used for longest goes first.
_CPU_FLAG = "--xla_cpu_experimental_ynn_fusion_type="


def configure_backend() -> None:
    """Turns off an XLA:CPU fusion that slows convolutions; call before using JAX.

    It also has open reports of races, and runs are to be reproducible. A user who has
    set the flag keeps it; other backends do not read it.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _CPU_FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_CPU_FLAG}".strip()


def keep_compiled() -> None:
    """Keeps what XLA compiles on disk, so that the next process starts at once.

    In `~/.cache/deeprank_jax/xla`, or where `JAX_COMPILATION_CACHE_DIR` says.
    """
    if jax.config.jax_compilation_cache_dir is None:  # pyrefly: ignore
        cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        directory = pathlib.Path(cache) / "deeprank_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_compilation_cache_max_size", _CACHE_BYTES)
    # Small programs are many: what takes a tenth of a second is kept, too.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def check_divides(batch_size: int) -> None:
    """Checks that each device gets its share of a batch.

    Raises:
      ValueError: the batch does not divide over the devices, or there are other hosts,
        which would all draw the same triplets.
    """
    if jax.process_count() > 1:
        raise ValueError(
            f"This job has {jax.process_count()} processes, and training on several "
            "hosts is not supported yet: start it on one."
        )
    num_devices = jax.device_count()
    if batch_size % num_devices:
        below = batch_size // num_devices * num_devices
        choices = " or ".join(str(x) for x in (below, below + num_devices) if x)
        raise ValueError(
            f"config.batch_size={batch_size} does not divide over {num_devices} "
            f"devices; choose {choices}."
        )


def pmap_step(step_fn: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles `step_fn(state, batch)` and maps it over all devices.

    The state is whole on every device and is never stacked; each array of the batch
    is `[local_devices, per_device, ...]`. The old state's buffers are reused.

    Args:
      step_fn: must return values equal on all devices, e.g. by `jax.lax.pmean` over
        `DATA_AXIS`; the copy of the first device is what the caller gets.
    """
    return jax.pmap(
        step_fn,
        axis_name=DATA_AXIS,
        in_axes=(None, 0),
        out_axes=None,
        donate_argnums=0,
    )


def pmap_embed(
    embed_fn: Callable[[Any, jax.Array], jax.Array],
) -> Callable[[Any, np.ndarray], np.ndarray]:
    """Compiles `embed_fn(state, images)` and maps it over the local devices.

    Returns:
      A function from `(state, images [B, ...])` to embeddings `[B, D]`, both on the
      host; a batch that does not divide over the devices is padded.
    """
    mapped = jax.pmap(embed_fn, axis_name=DATA_AXIS, in_axes=(None, 0))

    def embed(state: Any, images: np.ndarray) -> np.ndarray:
        padding = -len(images) % jax.local_device_count()
        padded = np.pad(images, ((0, padding), *((0, 0),) * (images.ndim - 1)))
        embeddings = np.asarray(mapped(state, split_over_devices(padded)))
        return embeddings.reshape(-1, embeddings.shape[-1])[: len(images)]

    return embed


def replicate(state: Any) -> Any:
    """Puts a whole copy of `state` on every local device.

    Start from this: a state that lies on one device makes the first step compile
    for it, and the second step compile again.
    """
    return jax.device_put(state, jax.NamedSharding(_local_mesh(), jax.P()))


def split_over_devices(batch: Any) -> Any:
    """Puts host arrays `[B, ...]` on local devices as `[local_devices, B / n, ...]`.

    Raises:
      ValueError: the leading axis does not divide by the number of local devices.
    """
    sharding = jax.NamedSharding(_local_mesh(), jax.P(DATA_AXIS))
    num_devices = jax.local_device_count()

    def put(x):
        if len(x) % num_devices:
            raise ValueError(
                f"A batch of {len(x)} does not divide over {num_devices} devices."
            )
        return jax.device_put(x.reshape(num_devices, -1, *x.shape[1:]), sharding)

    return jax.tree.map(put, batch)


def prefetch(
    batches: Iterable[Any], to_device: Callable[[Any], Any], size: int = 2
) -> Iterator[tuple[Any, Any]]:
    """Yields each batch beside its device arrays, `size` transfers ahead of use.

    Args:
      batches: host batches. Each must own fresh memory: on CPU a device array may
        alias it.
      to_device: starts the transfer of a batch, e.g. by `split_over_devices`.
      size: how many transfers are in flight, at least 1.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}.")
    on_device = ((batch, to_device(batch)) for batch in batches)
    queue = collections.deque(itertools.islice(on_device, size))
    while queue:
        yield queue.popleft()
        queue.extend(itertools.islice(on_device, 1))


def _local_mesh() -> jax.sharding.Mesh:
    return jax.sharding.Mesh(np.array(jax.local_devices()), (DATA_AXIS,))
