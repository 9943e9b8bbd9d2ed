"""Trains a deep-ranking model: `python -m deeprank_jax.main --config=configs/x.py`.

Run without flags it trains the demo. Run again with the same flags it goes on where
it stopped.
"""

import errno
import pathlib
import signal
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from deeprank_jax import logs
from deeprank_jax.distributed import backend, processes
from deeprank_jax.distributed import job as job_lib

_DEFAULT_CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "emoji.py"
_CONFIG = config_flags.DEFINE_config_file(
    "config",
    help_string="The experiment, configs/emoji.py if not given; change a value by "
    "--config.batch_size=32.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address",
    None,
    "Address and port of process 0, to train with several processes; see docs/hosts.md."
    " Slurm, Kubernetes and TPU pods need none of these three flags.",
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes there are.", lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Which of them this one is, from 0.", lower_bound=0
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run is written; runs/<name of the config> if not given."
)


def main(argv: list[str]) -> None:
    """Reads the flags and trains."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument {argv[1]!r}; flags begin with --.")
    backend.configure_backend()
    backend.keep_compiled()
    job = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    try:
        with job_lib.job(*job):
            _train()
    except job_lib.CannotJoinError as error:
        sys.exit(f"deeprank_jax: {error}")


def _train() -> None:
    """Trains, and puts in a sentence what ends it early."""
    # JAX reads its flags when it starts, so what starts it comes after.
    from deeprank_jax.training import checkpoints, loop, progress

    if not processes.is_first():
        logging.set_verbosity(logging.WARNING)
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    workdir = _WORKDIR.value or f"runs/{name}"
    try:
        report = loop.train(_CONFIG.value, workdir)
    except loop.Stopped as stopped:
        print(f"deeprank_jax: {stopped}", file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)
    except (ValueError, checkpoints.CheckpointError, progress.NonFiniteError) as error:
        sys.exit(f"deeprank_jax: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            sys.exit(f"deeprank_jax: {error}")
        sys.exit(
            f"deeprank_jax: cannot write to {workdir} ({error.strerror}): make room "
            "and run the same command again, to go on from the last checkpoint."
        )
    if processes.is_first():
        print(f"Results: {pathlib.Path(workdir) / 'results.json'}\nReport:  {report}")


def _parse_flags(argv: list[str]) -> list[str]:
    chosen = [arg for arg in argv if arg.lstrip("-").split("=")[0] == "config"]
    # As a flag's default, the file would be read before errors can be put in words.
    default = [] if chosen else [f"--config={_DEFAULT_CONFIG}"]
    try:
        return flags.FLAGS([argv[0], *default, *argv[1:]])
    except (
        flags.Error,
        AttributeError,
        ImportError,
        LookupError,
        OSError,
        TypeError,
    ) as error:
        sys.exit(f"deeprank_jax: {_sentence(error)}")


def _sentence(error: BaseException) -> str:
    """Returns the innermost message: configs wrap a KeyError in an AttributeError."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    text = error.args[0] if isinstance(error, KeyError) else error
    return " ".join(str(text).split())


if __name__ == "__main__":
    logs.show_own()
    app.run(main, flags_parser=_parse_flags)
