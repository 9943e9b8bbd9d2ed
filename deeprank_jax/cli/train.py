"""Trains a model, or continues training where it stopped, and writes a report.

  deeprank train --config=emoji --workdir=runs/emoji

The same command again continues from the last checkpoint.
"""

import argparse
import contextlib
import errno
import faulthandler
import pathlib
import shlex
import sys
from typing import TYPE_CHECKING, NoReturn

from deeprank_jax.cli import arguments
from deeprank_jax.cli.output import Result
from deeprank_jax.errors import UserError

if TYPE_CHECKING:
    import ml_collections

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


# JAX may only start after the process has joined its job.
JOINS_A_JOB = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_config(parser, default="emoji")
    parser.add_argument(
        "--workdir", metavar="DIR", type=arguments.PATH,
        help="folder of the run; runs/NAME by default, after the config's name",
    )  # fmt: skip
    verbosity = parser.add_mutually_exclusive_group()
    verbosity.add_argument(
        "-q", "--quiet", action="store_true",
        help="show warnings and the result alone, and no bars",
    )  # fmt: skip
    verbosity.add_argument(
        "-v", "--verbose", action="store_true",
        help="show more: where each message comes from, and warnings of other packages",
    )  # fmt: skip
    job = parser.add_argument_group(
        "several processes",
        "Slurm, Kubernetes and TPU pods need none of these; see docs/hosts.md.",
    )
    job.add_argument(
        "--coordinator_address", metavar="HOST:PORT", type=_address,
        help="address of process 0",
    )  # fmt: skip
    job.add_argument(
        "--num_processes", metavar="N", type=arguments.at_least(1),
        help="number of processes",
    )  # fmt: skip
    job.add_argument(
        "--process_id", metavar="I", type=arguments.at_least(0),
        help="number of this process, from 0",
    )  # fmt: skip


def _address(text: str) -> str:
    """Returns an address that has a host and a port."""
    host, _, port = text.rpartition(":")
    is_number = port.isascii() and port.isdigit() and len(port) <= len("65535")
    if not host or not is_number or not 0 < int(port) <= 65535:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be HOST:PORT, with a port from 1 to 65535"
        )
    return text


def check(options: argparse.Namespace) -> None:
    """Chooses what is shown, and connects with the other processes of a job.

    Both come before the seconds of the imports.
    """
    if not options.verbose:
        from deeprank_jax import logs

        logs.hide_xla_messages()
    address, num = options.coordinator_address, options.num_processes
    process_id = options.process_id
    options.rendezvous = None
    if address is None or num is None or process_id is None or process_id >= num > 1:
        return
    if num > 1:
        from deeprank_jax.distributed.rendezvous import Rendezvous

        options.rendezvous = Rendezvous(address, num, process_id).start()


def run(options: argparse.Namespace) -> Result:
    """Trains."""
    from absl import logging

    from deeprank_jax import logs, progress
    from deeprank_jax.distributed import job as job_lib

    level = logging.INFO
    if options.quiet or options.verbose:
        level = logging.WARNING if options.quiet else logging.DEBUG
    style = logs.Style.DETAILED if options.verbose else logs.Style.DATED
    logs.configure_logging(level, style=style)
    if not faulthandler.is_enabled():
        faulthandler.enable()
    job = (options.coordinator_address, options.num_processes, options.process_id)
    hidden = progress.without_bars() if options.quiet else contextlib.nullcontext()
    with hidden, job_lib.job(*job, options.rendezvous):
        return _train(options)


def _whole_command(options: argparse.Namespace, workdir: str) -> str:
    """Returns the command line, with config and folder where they were left out."""
    words = shlex.split(options.whole_command_line)
    for option, value in (("--config", options.config), ("--workdir", workdir)):
        if not any(word.partition("=")[0] == option for word in words):
            words.append(f"{option}={value}")
    return shlex.join(words)


def _load_config(options: argparse.Namespace) -> "ml_collections.ConfigDict":
    """Returns the config, before the seconds of the imports that training needs."""
    try:
        return arguments.load_config(options)
    except UserError as error:
        _end_with(error)


def _end_with(error: UserError) -> NoReturn:
    """Ends within the job, so that the other processes are told the reason."""
    sys.exit(f"deeprank train: {error}")


def _train(options: argparse.Namespace) -> Result:
    """Trains in the job of all processes, which ends with the first error."""
    from absl import logging

    from deeprank_jax.distributed import backend, processes
    from deeprank_jax.progress import working

    backend.check_platforms()
    if not processes.is_first():
        logging.set_verbosity(logging.WARNING)
    config = _load_config(options)
    workdir = options.workdir or f"runs/{arguments.config_name(options)}"
    logging.info("Folder of the run: %s", workdir)
    with working("Starting", shown=processes.is_first()):
        from deeprank_jax.training import loop, summary
    try:
        command = _whole_command(options, workdir)
        report = loop.train(config, workdir, command=command)
    except loop.Stopped as stopped:
        # The terminal may be gone.
        with contextlib.suppress(OSError):
            print(f"deeprank train: {stopped}", file=sys.stderr)
        sys.exit(128 + stopped.number)
    except UserError as error:
        _end_with(error)
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        sys.exit(
            f"deeprank train: cannot write to {workdir} ({error.strerror}): make room "
            "and run the same command again, to continue from the last checkpoint."
        )
    if not processes.is_first():
        return Result({}, "")
    results = pathlib.Path(workdir) / "results.json"
    values = {"workdir": workdir, "results": results, "report": report}
    return Result(values, summary.describe_end(workdir))
