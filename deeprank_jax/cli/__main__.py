"""The command `deeprank`, or `python -m deeprank_jax.cli`: use a trained model.

  deeprank export --workdir=runs/emoji --out=model
  deeprank index photos --model=model --out=photos.index
  deeprank search query.jpg --index=photos.index --out=found.html

`deeprank COMMAND --help` tells what a command takes.
"""

import argparse
from collections.abc import Sequence
import math
import os
import signal
import sys
from typing import Any

from absl import flags, logging

from deeprank_jax import logs
from deeprank_jax.distributed import backend

_SOURCE = "a folder of images; a .txt, .csv or .parquet list; or tfds:NAME/SPLIT"
# What a shell leaves as it is in `--out=~/x`.
_PATH = os.path.expanduser
_PICTURE = "a .html or .png to write, to look at"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command; what goes wrong is one line, and exit status 1."""
    options = vars(_create_parser().parse_args(argv))
    # absl logs to where it is told only once it has seen its flags; it has none here.
    flags.FLAGS.mark_as_parsed()
    logging.use_absl_handler()
    logging.get_absl_handler().setFormatter(None)  # Messages only.
    logs.show_own()
    backend.configure_backend()
    backend.keep_compiled()
    # JAX reads its flags when it starts, so what starts it comes after.
    from deeprank_jax import export
    from deeprank_jax.cli import output
    from deeprank_jax.training import checkpoints

    try:
        output.COMMANDS[options.pop("command")](**options)
        sys.stdout.flush()
    except (
        ValueError,
        OSError,
        checkpoints.CheckpointError,
        export.ExportError,
    ) as error:
        if isinstance(error, BrokenPipeError):
            # Whoever read has read enough, as `head` does.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)
        sys.exit(f"deeprank: {error}")


def _create_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deeprank",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        _add_export, _add_embed, _add_compare, _add_index, _add_search, _add_rank,
        _add_duplicates, _add_clusters,
    ):  # fmt: skip
        add(commands)
    return parser


def _add(commands: argparse._SubParsersAction, name: str, **options: Any) -> Any:
    return commands.add_parser(name, **options, allow_abbrev=False)


def _add_export(commands: argparse._SubParsersAction) -> None:
    command = _add(commands, "export", help="write a trained run as one folder")
    command.add_argument("--workdir", type=_PATH, required=True, help="of the run")
    command.add_argument("--out", type=_PATH, required=True, help="the folder to write")
    command.add_argument(
        "--precision",
        type=float,
        default=0.95,
        help="of pairs called similar, where as many are of one class as not; "
        "default %(default)s",
    )
    command.add_argument(
        "--onnx_python",
        type=_PATH,
        help="the Python of an environment with requirements-onnx.txt, to write ONNX",
    )


def _add_embed(commands: argparse._SubParsersAction) -> None:
    command = _add(commands, "embed", help="write embeddings of images as Parquet")
    _add_images(command)
    command.add_argument(
        "--out", type=_PATH, required=True, help="the .parquet to write"
    )


def _add_compare(commands: argparse._SubParsersAction) -> None:
    command = _add(commands, "compare", help="say how similar two images are")
    command.add_argument("images", nargs=2, metavar="IMAGE", type=_PATH)
    command.add_argument("--model", type=_PATH, required=True, help="an exported model")
    command.add_argument("--out", type=_PATH, help=_PICTURE)


def _add_index(commands: argparse._SubParsersAction) -> None:
    command = _add(
        commands, "index", help="make images searchable, or add to those that are"
    )
    _add_images(command)
    command.add_argument("--out", type=_PATH, required=True, help="the index, a folder")
    command.add_argument(
        "--kind", choices=("auto", "exact", "hnsw"),
        help="how it is searched; auto, if not given, chooses by the number of images",
    )  # fmt: skip
    command.add_argument(
        "--metric",
        choices=("squared_euclidean", "cosine"),
        help="what a distance is; squared_euclidean if not given",
    )


def _add_search(commands: argparse._SubParsersAction) -> None:
    command = _add(commands, "search", help="find the images nearest to one")
    command.add_argument("image", metavar="IMAGE", type=_PATH)
    command.add_argument(
        "--index", type=_PATH, required=True, help="of `deeprank index`"
    )
    command.add_argument(
        "--model", type=_PATH, help="if it is not where the index was made"
    )
    command.add_argument("--k", type=int, default=10, help="how many; 10 if not given")
    command.add_argument(
        "--label", action="append", help="only images with this label; may be repeated"
    )
    command.add_argument("--out", type=_PATH, help=_PICTURE)


def _add_rank(commands: argparse._SubParsersAction) -> None:
    command = _add(commands, "rank", help="sort images by similarity to one")
    _add_images(command)
    command.add_argument("--image", type=_PATH, required=True, help="to compare with")
    command.add_argument("--out", type=_PATH, help=f"{_PICTURE}; or a .csv")


def _add_duplicates(commands: argparse._SubParsersAction) -> None:
    command = _add(commands, "duplicates", help="find copies among images")
    _add_images(command)
    command.add_argument(
        "--max_distance",
        type=_distance,
        help="squared, of embeddings alone; if not given, what worse copies stay "
        "within, by embedding and by pixels",
    )
    command.add_argument("--out", type=_PATH, help=f"{_PICTURE}; or a .csv")


def _add_clusters(commands: argparse._SubParsersAction) -> None:
    command = _add(commands, "clusters", help="group images by similarity")
    _add_images(command)
    how = command.add_mutually_exclusive_group()
    how.add_argument(
        "--max_distance",
        type=_distance,
        help="squared, the mean within a cluster; if not given, the model's own",
    )
    how.add_argument("--num", type=int, help="how many clusters, instead")
    command.add_argument("--out", type=_PATH, help=f"{_PICTURE}; or a .csv")


def _add_images(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", metavar="IMAGES", type=_PATH, help=_SOURCE)
    command.add_argument("--model", type=_PATH, required=True, help="an exported model")
    command.add_argument(
        "--data_dir",
        type=_PATH,
        default="data",
        help="where TFDS keeps datasets",
    )
    command.add_argument(
        "--label_feature",
        default="",
        help="of a TFDS dataset that the model was not trained on: what labels it",
    )


def _distance(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no distance, which is 0 or more")
    return value


if __name__ == "__main__":
    main()
