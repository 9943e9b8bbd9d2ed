"""Job of several processes that train one model: joining, failing and leaving.

All coordination goes through the key-value store that JAX's coordinator, in process 0,
keeps for the job. For a single process nothing here has an effect.
"""

from collections.abc import Iterator
import contextlib

import jax

from deeprank_jax.distributed import coordinator, signals
from deeprank_jax.distributed.ends import PREFIX
from deeprank_jax.distributed.heartbeat import Heartbeat, exit_on_abort
from deeprank_jax.distributed.processes import barrier
from deeprank_jax.distributed.rendezvous import Rendezvous, RendezvousError
from deeprank_jax.errors import UserError

_STOPPED = [128 + number for number in signals.SIGNALS]
_JOIN_SECONDS = 300


class CannotJoinError(UserError):
    """The other processes cannot be reached, or their address is not given."""


@contextlib.contextmanager
def job(
    address: str | None,
    num_processes: int | None,
    process_id: int | None,
    rendezvous: Rendezvous | None = None,
) -> Iterator[None]:
    """Makes this process part of a job while the context lasts, if there is one.

    The job is described by the arguments, or by the environment as JAX detects it:
    Slurm with several tasks, a Kubernetes indexed job, a Cloud TPU pod, Open MPI.

    A process that leaves with an error, or because of a signal, tells the others the
    reason, and they end, too.
    A process that leaves without one waits for the others.

    Args:
      address: Address and port of process 0.
      num_processes: Number of processes; 1 ignores the environment.
      process_id: Index of this process, from 0.
      rendezvous: Rendezvous of the processes that the arguments describe, if it has
        been started.

    Raises:
      CannotJoinError: Only some of the arguments are given, or process 0 cannot be
        reached.
    """
    if not _join(address, num_processes, process_id, rendezvous):
        yield
        return
    heartbeat = Heartbeat(
        coordinator.store(),
        jax.process_index(),
        jax.process_count(),
        coordinator.address(),
    )
    heartbeat.start()
    if rendezvous is not None:
        rendezvous.leave()
    signals.on_end(heartbeat.tell_of_signal)
    try:
        yield
    except BaseException as error:
        if (number := signals.raised()) is not None:
            heartbeat.end_by_signal(number)
        if not isinstance(error, SystemExit):
            heartbeat.fail(
                f"{type(error).__name__}: {error}", others_first=True, traceback=True
            )
        elif error.code not in (None, 0, *_STOPPED):
            # Except for errors of the user, the death of another may be the cause.
            is_user_error = isinstance(error.__context__, ValueError)
            heartbeat.fail(str(error.code), others_first=not is_user_error)
        _leave(heartbeat)
        raise
    else:
        _leave(heartbeat)


def _leave(heartbeat: Heartbeat) -> None:
    """Waits for all, so that no end of a process looks like its death."""
    with signals.patient():  # Another may still be saving.
        barrier("end")
    heartbeat.stop()


def _join(
    address: str | None,
    num_processes: int | None,
    process_id: int | None,
    rendezvous: Rendezvous | None,
) -> bool:
    """Joins the job, if there is one, and returns True in that case."""
    arguments = (address, num_processes, process_id)
    by_hand = None not in arguments
    from_environment = arguments == (None, None, None)
    if num_processes == 1 or (from_environment and not coordinator.is_in_cluster()):
        return False
    if not by_hand and not from_environment:
        raise CannotJoinError(
            "--coordinator_address, --num_processes and --process_id go together: give "
            "all three, or none under Slurm, Kubernetes or on a TPU pod."
        )
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Its handler of SIGTERM would compete with ours, and cannot be removed again.
    jax.config.update("jax_enable_preemption_service", False)
    message = (
        f"Cannot join the other processes at {address or 'the coordinator'}: check "
        "that all were started with the same address and number, and that process 0 "
        "can be reached there."
    )
    exit_on_abort(lambda: PREFIX + message)
    try:
        if rendezvous is not None:
            rendezvous.wait(_JOIN_SECONDS)
        jax.distributed.initialize(
            address,
            num_processes,
            process_id,
            cluster_detection_method="deactivate" if by_hand else None,
            initialization_timeout=_JOIN_SECONDS,
        )
    except (RuntimeError, ValueError, RendezvousError) as error:
        cause = " ".join(str(error).split())[:300]
        raise CannotJoinError(f"{message} The cause: {cause}") from error
    return jax.process_count() > 1
