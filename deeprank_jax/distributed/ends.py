"""Ends of a job's processes: their sentences, and times without a sign of life."""

import contextlib
import os
import signal

from deeprank_jax.distributed import signals

# Seconds between signs of life, and without one after which a process counts as dead.
BEAT_SECONDS, SILENCE_SECONDS = 2.0, 20.0
# The beginning of every sentence that a process of a job ends with.
PREFIX = "deeprank train: "
CONTINUE = "start all of them again to continue from the last checkpoint."
GONE = " is gone"


def not_heard(seconds: float) -> str:
    """Returns the phrase for a process without a sign of life."""
    return f"not heard of for {seconds:.0f} s"


def gone(process: int, num_processes: int, how: str) -> str:
    """Returns the sentence about a process that has died.

    Args:
      process: Index of the process.
      num_processes: Number of processes.
      how: Phrase for how this was noticed.
    """
    return f"{PREFIX}process {process} of {num_processes}{GONE} ({how}); {CONTINUE}"


def by_signal(number: signal.Signals, process: int, num_processes: int) -> str:
    """Returns the sentence about a signal to another process.

    Args:
      number: The signal.
      process: Index of that process.
      num_processes: Number of processes.
    """
    return (
        f"{PREFIX}{number.name} to process {process} of {num_processes}: stopped, as "
        f"all are; {CONTINUE}"
    )


def say_last_word(text: str) -> None:
    """Prints the sentence that this process ends with, unless another was printed."""
    if signals.claim_last_word():
        with contextlib.suppress(OSError):  # The terminal may be gone.
            os.write(2, f"\n{text}\n".encode())


def end_process(text: str, status: int) -> None:
    """Ends this process at once, from any thread.

    Args:
      text: Sentence that it ends with.
      status: Exit status.
    """
    say_last_word(text)
    signals.clean_up()
    os._exit(status)
