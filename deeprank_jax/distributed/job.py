"""Several processes that train one model: how they meet, wait, stop and notice a death.

Everything goes through the key-value store that JAX's coordinator, in process 0, keeps
for the job. A plain single process meets nobody, and all here does nothing for it.
"""

from collections.abc import Iterator
import contextlib
import os
import signal

import jax

from deeprank_jax.distributed.heartbeat import Watch, catch_abort
from deeprank_jax.distributed.processes import _address, _client, barrier

_STOPPED = 128 + signal.SIGTERM
_JOIN_SECONDS = 300
# What leads to the only cluster whose mere detection warns or asks a server.
_KUBERNETES, _INDEXED_JOB = "K8sCluster", "JOB_COMPLETION_INDEX"


class CannotJoinError(RuntimeError):
    """The other processes are not there, or it is not said where they are."""


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
