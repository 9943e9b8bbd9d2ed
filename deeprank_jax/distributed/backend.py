"""XLA flags and the cache of compiled programs, set before JAX starts."""

import os
import pathlib

import jax

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
