"""How do matrix products and the threads that share the images not fight for cores?

Convention: learned descriptors multiply inside `one_thread`, so that their numbers do
not depend on how many threads there are either.
"""

from collections.abc import Iterator
import contextlib
import threading

import threadpoolctl

_lock = threading.Lock()
_holders = 0
_limits: threadpoolctl.threadpool_limits | None = None


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keeps BLAS and OpenMP to the calling thread, until the last holder leaves.

    The limit is the process's, not a thread's: were each of several threads to restore
    what it found, the one that came second would restore the limit of the first.
    """
    global _holders, _limits
    with _lock:
        if not _holders:
            _limits = threadpoolctl.threadpool_limits(1)
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders and _limits is not None:
                _limits.restore_original_limits()
                _limits = None
