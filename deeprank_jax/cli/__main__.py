# PYTHON_ARGCOMPLETE_OK
"""Entry point of the command line `deeprank`, or `python -m deeprank_jax.cli`."""

import argparse
from collections.abc import Iterator, Sequence
import contextlib
import errno
import os
import shlex
import signal
import sys

from deeprank_jax.cli import arguments, commands, huge_pages, output
from deeprank_jax.cli.arguments import CommandParser, HelpFormatter
from deeprank_jax.distributed import signals
from deeprank_jax.errors import UserError

_DESCRIPTION = """\
Learns image similarity by deep ranking, and uses what was learned.

  deeprank train --config=emoji
  deeprank export --workdir=runs/emoji --out=model
  deeprank index photos --model=model --out=photos.index
  deeprank search query.jpg --index=photos.index --out=found.html
"""
_EPILOG = """\
`deeprank COMMAND --help` describes the arguments of a command.

Exit status: 0 success, 1 an input or file cannot be used, 2 wrong arguments,
130 interrupted by Ctrl-C, 143 stopped by SIGTERM, 129 by the end of its terminal,
141 the reader of a pipe has ended.
"""
_INTERRUPTED = 128 + signal.SIGINT
# Commands that keep the part of their work that is done.
_RESUMED = ("train", "embed", "index", "ablation", "paper-table")
_BROKEN_PIPE = 128 + signal.SIGPIPE
# The disk is full, or the user may not write or read there.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_PERMISSION = (errno.EACCES, errno.EPERM)
# Text of a `RuntimeError`, as a thread needs memory for its stack.
_NO_THREAD = "can't start new thread"
_OPEN_FILES = (errno.EMFILE, errno.ENFILE)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command.

    Args:
      argv: Words of the command line; None for those of the process, which then ends
        with the command.

    Raises:
      SystemExit: The command failed or was stopped; the status is documented in
        `deeprank --help`.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    name = _command_of(words)
    ending = signals.Ending(
        lambda number: _describe_stop(name, number), owns_process=argv is None
    )
    with ending, _exit_status(name, ending):
        huge_pages.accept_signals()
        _parse_and_run(name, words, owns_process=argv is None)


def _parse_and_run(
    name: str | None, words: Sequence[str], *, owns_process: bool
) -> None:
    """Parses the words of a command line and runs its command."""
    parser = create_parser(name)
    _complete(parser)
    if name is not None and name not in commands.list_commands():
        from deeprank_jax.registry import did_you_mean

        hint = did_you_mean(name, commands.list_commands())
        parser.error(f"there is no command {name!r}{hint}; see deeprank --help")
    options = parser.parse_args(words)
    options.command_line = arguments.join_words(words)
    options.whole_command_line = shlex.join(["deeprank", *words])
    if owns_process and getattr(options.module, "USES_JAX", True):
        huge_pages.restart()
    _run(options)


def create_parser(name: str | None) -> argparse.ArgumentParser:
    """Creates the parser of `deeprank`.

    Args:
      name: Name of the command whose module is imported for its arguments; the others
        only have their help text.
    """
    parser = argparse.ArgumentParser(
        prog="deeprank",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action=_PrintVersion, nargs=0, help="print the version and exit"
    )
    subparsers = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=CommandParser
    )
    for command, text in commands.list_commands().items():
        subparser = subparsers.add_parser(
            command,
            help=text[:1].lower() + text[1:].rstrip("."),
            description=text,
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
        if command == name:
            module = commands.load_command(command)
            subparser.description = module.__doc__
            module.add_arguments(subparser)
            subparser.add_argument(
                "--json", action="store_true", help="print the result as JSON"
            )
            subparser.set_defaults(module=module)
    return parser


class _PrintVersion(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Prints and exits."""
        import importlib.metadata

        from deeprank_jax import version

        number = importlib.metadata.version("deeprank-jax")
        print(f"deeprank_jax {number} ({version.commit()})")
        parser.exit()


def _command_of(words: Sequence[str]) -> str | None:
    """Returns the command that a command line, or that of a shell, begins with."""
    if "_ARGCOMPLETE" in os.environ:
        try:
            words = shlex.split(os.environ.get("COMP_LINE", ""))[1:]
        except ValueError:  # A quote that is still open.
            return None
    return next((word for word in words if not word.startswith("-")), None)


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answers a shell that asks for completions, if argcomplete is installed."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    try:
        import argcomplete
    except ImportError:
        return
    argcomplete.autocomplete(parser)


def _run(options: argparse.Namespace) -> None:
    """Runs the selected command and prints its result."""
    from deeprank_jax import logs

    output.prepare_stdout()
    logs.configure_logging()
    module = options.module
    if hasattr(module, "check"):
        module.check(options)
    if getattr(module, "USES_JAX", True):
        # JAX reads its flags when it starts.
        from deeprank_jax.distributed import backend

        backend.configure_backend()
        backend.keep_compiled()
        if not getattr(module, "JOINS_A_JOB", False):
            backend.check_platforms()
        arguments.export_pretrained_model(options)
    if options.json:
        # Keeps what a library prints out of the JSON.
        with contextlib.redirect_stdout(sys.stderr):
            result = module.run(options)
    else:
        result = module.run(options)
    sys.stdout.write(result.format(as_json=options.json))
    sys.stdout.flush()


def _describe_stop(command: str | None, number: signal.Signals) -> str:
    """Returns the sentence of a command that a signal ends."""
    end = " to continue" if command in _RESUMED else ""
    name = "deeprank" if command is None else f"deeprank {command}"
    return f"{name}: {number.name}: stopped; run the same command again{end}."


@contextlib.contextmanager
def _exit_status(command: str | None, ending: signals.Ending) -> Iterator[None]:
    """Turns errors that a user can cause into one line and an exit status."""
    try:
        yield
    except signals.Interrupted as interrupted:
        ending.say(interrupted.number)
        sys.exit(interrupted.status)
    except UserError as error:
        from deeprank_jax import logs

        sys.exit(logs.escaped_lines(f"deeprank {command}: {error}"))
    except BrokenPipeError:
        # The reader, e.g. `head`, has ended; Python's last flush must not fail, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_BROKEN_PIPE)
    except KeyboardInterrupt:
        print(f"deeprank {command}: interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except OSError as error:
        if error.errno in _OPEN_FILES:
            sys.exit(
                f"deeprank {command}: {error.strerror}: allow more, e.g. by "
                "ulimit -n 1024, and run the same command again."
            )
        if error.errno not in _DISK + _PERMISSION:
            raise
        remedy = "make room" if error.errno in _DISK else "check its permissions"
        path = error.filename if error.filename else "a file"
        sys.exit(
            f"deeprank {command}: {path} cannot be used ({error.strerror}): {remedy}, "
            "or give another path."
        )
    except (MemoryError, RuntimeError) as error:
        if (reason := _describe_shortage(error)) is None:
            raise
        sys.exit(
            f"deeprank {command}: too little memory ({reason}): free some, raise its "
            "limit (ulimit -v, ulimit -u), or use smaller batches or images."
        )


def _describe_shortage(error: BaseException | None) -> str | None:
    """Returns the first sign of too little memory in a chain of errors, if any."""
    while error is not None:
        if isinstance(error, MemoryError):
            return str(error) or "an allocation failed"
        if _NO_THREAD in str(error):
            return _NO_THREAD
        error = error.__cause__ or error.__context__
    return None


if __name__ == "__main__":
    main()
