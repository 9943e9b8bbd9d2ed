"""XLA flags and the cache of compiled programs, set before JAX starts."""

import os
import pathlib

import jax

from deeprank_jax.errors import UserError

_CACHE_BYTES = 4 * 2**30  # The least recently used programs are removed first.
_CPU_FLAG = "--xla_cpu_experimental_ynn_fusion_type="


def configure_backend() -> None:
    """Turns off an XLA:CPU fusion that slows convolutions; call before using JAX.

    There are also open reports of races in it, and runs must be reproducible. A value
    that the user has set stays; other backends do not read the flag.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _CPU_FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_CPU_FLAG}".strip()


def keep_compiled() -> None:
    """Keeps compiled programs on disk, so that the next process starts at once.

    The folder is `~/.cache/deeprank_jax/xla`, or `JAX_COMPILATION_CACHE_DIR`.
    """
    if jax.config.jax_compilation_cache_dir is None:  # pyrefly: ignore
        cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        directory = pathlib.Path(cache) / "deeprank_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_compilation_cache_max_size", _CACHE_BYTES)
    # There are many small programs: also keep those that compile in 0.1 s.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def check_platforms() -> None:
    """Checks that JAX finds a device of `JAX_PLATFORMS`, if that is set.

    Raises:
      UserError: It finds none.
    """
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if not platforms or platforms == "cpu":
        return
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"JAX_PLATFORMS={platforms}: JAX finds no such device; unset it, or "
            "install the package for it, e.g. pip install 'deeprank-jax[cuda]'."
        ) from error
