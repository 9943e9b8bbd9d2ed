"""Arguments that several commands share, and their checks before JAX is imported."""

import argparse
from collections.abc import Sequence
import math
import os
import pathlib
import shlex
from typing import TYPE_CHECKING

from deeprank_jax import files
from deeprank_jax.errors import ArtifactError, ConfigError, UserError
from deeprank_jax.inference import pretrained

if TYPE_CHECKING:
    import ml_collections

    from deeprank_jax.data.records import Records
    from deeprank_jax.inference.model import Model

# Expands `~` where the shell does not, as in `--out=~/x`.
PATH = os.path.expanduser
_SOURCE = "a folder of images; a .txt, .csv or .parquet list; or tfds:NAME/SPLIT"
_OVERRIDE = "--config."
# Modes of drawing triplets, `sampling.MODES` without importing it.
MODES = ("importance", "uniform")
PICTURES = (".html", ".png")


class CommandParser(argparse.ArgumentParser):
    """Parser of one command, whose errors show the usage of this command.

    The help of a command with a config, `--config=NAME --help`, has the keys of it.
    """

    _config: str | None = None

    def parse_known_args(self, args=None, namespace=None):  # pyrefly: ignore
        """Parses arguments; `--config.KEY=VALUE` go to `overrides` as they are."""
        overrides: list[str] = []
        if self.get_default("overrides") is not None:
            args, overrides = split_overrides(args or ())
            self._config = _find_option("--config", args)
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        if overrides:
            options.overrides = overrides
        return options, []

    def format_help(self) -> str:
        """Returns the help, with every key of a selected config."""
        text = super().format_help()
        if self._config is None:
            return text
        from deeprank_jax.config import describe

        try:
            return f"{text}\n{describe.describe_config(self._config)}"
        except UserError as error:
            self.error(str(error))


def _find_option(name: str, words: Sequence[str]) -> str | None:
    """Returns the value of an option in the words of a command line."""
    for i, word in enumerate(words):
        if word == name and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help that keeps the line breaks of descriptions and adds defaults."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help
        if not text or "%(default)" in text or not action.option_strings:
            return text
        if action.default in (None, False, "", argparse.SUPPRESS):
            return text
        return f"{text} (default: %(default)s)"


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates overrides of the config from the other words of a command line.

    Args:
      words: Words of the command line.

    Returns:
      The other words, and the overrides: `--config.KEY=VALUE`, or `--config.KEY` and
      VALUE as two words.
    """
    others: list[str] = []
    overrides: list[str] = []
    words = list(words)
    while words:
        word = words.pop(0)
        if word == "--":
            return [*others, word, *words], overrides
        if not word.startswith(_OVERRIDE):
            others.append(word)
            continue
        overrides.append(word)
        if "=" not in word and words and not words[0].startswith("--"):
            overrides.append(words.pop(0))
    return others, overrides


# Words that say where files are, and change no number.
_PLACES = ("--workdir", "--out", "--jobs", "--json", "--config.data.dir")


def join_words(words: Sequence[str]) -> str:
    """Returns a command line to keep with results, without the places of files."""
    others = [word for word in words if word.partition("=")[0] not in _PLACES]
    return shlex.join(["deeprank", *others])


def add_config(
    parser: argparse.ArgumentParser,
    *,
    default: str | None = None,
    required: bool = True,
) -> None:
    """Adds `--config` and its overrides `--config.KEY=VALUE`.

    Args:
      parser: Parser of the command.
      default: Name of the config that is used without `--config`.
      required: False if the command also works without a config.
    """
    parser.add_argument(
        "--config",
        metavar="NAME",
        default=default,
        required=required and default is None,
        help="config: a name of `deeprank configs`, or the path of a config file; "
        "change a value by --config.KEY=VALUE, e.g. --config.batch_size=32",
    )
    parser.set_defaults(overrides=())


def load_config(options: argparse.Namespace) -> "ml_collections.ConfigDict":
    """Returns the config that a command line selects, with its overrides."""
    from deeprank_jax import config as config_lib

    return config_lib.load_config(options.config, options.overrides)


def config_name(options: argparse.Namespace) -> str:
    """Returns the bare name of the selected config, e.g. for a folder."""
    return pathlib.Path(options.config).stem


def config_path(options: argparse.Namespace) -> pathlib.Path:
    """Returns the file of the selected config."""
    from deeprank_jax.config import loading

    return loading.find_config(options.config)


def override_texts(options: argparse.Namespace) -> list[str]:
    """Returns the overrides as `KEY=VALUE`."""
    from deeprank_jax.config import overrides

    return [f"{key}={value}" for key, value in overrides.parse_words(options.overrides)]


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Adds `--workdir`, the folder with the runs of an experiment."""
    parser.add_argument(
        "--workdir", metavar="DIR", type=PATH,
        help="folder for the runs; runs/NAME by default, after the config's name",
    )  # fmt: skip


def runs_folder(options: argparse.Namespace) -> pathlib.Path:
    """Returns the folder for the runs of an experiment."""
    return pathlib.Path(options.workdir or f"runs/{config_name(options)}")


def add_images(parser: argparse.ArgumentParser, *, or_table: bool = False) -> None:
    """Adds the images that a command works on, and the model that embeds them.

    Args:
      parser: Parser of the command.
      or_table: True if a table of embeddings can stand in place of both.
    """
    text = f"{_SOURCE}; without --model a table of `deeprank embed`"
    parser.add_argument(
        "source", metavar="IMAGES", type=PATH, help=text if or_table else _SOURCE
    )
    add_model(parser, required=not or_table, needed="for images")
    parser.add_argument(
        "--data_dir", metavar="DIR", type=PATH, default="data",
        help="folder in which TFDS keeps its datasets",
    )  # fmt: skip
    parser.add_argument(
        "--label_feature", metavar="NAME", default="",
        help="feature with the labels of a TFDS dataset that the model was not "
        "trained on",
    )  # fmt: skip


def add_model(
    parser: argparse.ArgumentParser,
    *,
    required: bool = True,
    needed: str = "if it has moved since the index was made",
) -> None:
    """Adds `--model`, the folder of an exported model or a pretrained network.

    Args:
      parser: Parser of the command.
      required: False if the command may go without.
      needed: Case in which it is needed, if it is not required.
    """
    text = "folder of a model written by `deeprank export`, or a network as it comes: "
    text += ", ".join(pretrained.IMAGE_SIZES)
    if not required:
        text += f"; only needed {needed}"
    parser.add_argument(
        "--model", metavar="MODEL", type=PATH, required=required, help=text
    )


def add_picture(parser: argparse.ArgumentParser, *, table: bool = False) -> None:
    """Adds `--out`, a picture of the result.

    Args:
      parser: Parser of the command.
      table: True if the result may also be written as CSV.
    """
    parser.add_argument(
        "--out", metavar="FILE", type=PATH,
        help="picture of the result to write, .html or .png"
        + ("; or a .csv table" if table else ""),
    )  # fmt: skip


def add_heat_map(parser: argparse.ArgumentParser) -> None:
    """Adds `--heat_map`, by which the picture shows where images are similar."""
    parser.add_argument(
        "--heat_map", action="store_true",
        help="draw where the images are similar into the picture, too",
    )  # fmt: skip
    parser.set_defaults(usage_error=parser.error)


def check_heat_map(options: argparse.Namespace) -> None:
    """Checks that there is a picture to draw into."""
    if options.heat_map and not (options.out or "").endswith(PICTURES):
        options.usage_error(
            "--heat_map draws into the picture of --out: give its path, .html or .png"
        )


def add_include_query(parser: argparse.ArgumentParser) -> None:
    """Adds `--include_query`, by which the query may be its own hit."""
    parser.add_argument(
        "--include_query", action="store_true",
        help="keep the image itself among the hits, if it is one of those searched",
    )  # fmt: skip


def distance(text: str) -> float:
    """Parses a distance, at least 0 and finite."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a distance of 0 or more")
    return value


def at_least(smallest: int):
    """Returns a parser of integers that are not below `smallest`."""

    def parse(text: str) -> int:
        value = int(text)
        if value < smallest:
            raise argparse.ArgumentTypeError(f"{text} is below {smallest}")
        return value

    parse.__name__ = "integer"  # Named so in argparse's message.
    return parse


def comma_separated(text: str) -> list[str]:
    """Parses names separated by commas."""
    return [name for name in map(str.strip, text.split(",")) if name]


def export_pretrained_model(options: argparse.Namespace) -> None:
    """Replaces `--model`, where it names a pretrained network, by its folder."""
    model = getattr(options, "model", None)
    if model is not None and pretrained.is_pretrained(model):
        pretrained.check_export_is_installed()
        from deeprank_jax import export

        options.model = str(export.model_folder(model))


def check_model(path: str | None) -> None:
    """Checks that a path may be an exported model.

    Raises:
      ArtifactError: There is no such folder, or it holds an index or a run.
    """
    if path is None or pretrained.is_pretrained(path):
        return
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise ArtifactError(
            f"{path}: there is no such folder; give --model a folder written by "
            f"`deeprank export`, or one of {', '.join(pretrained.IMAGE_SIZES)}."
        )
    kind = ""
    if (folder / "index.json").exists():
        kind = "an index, which is given as --index"
    elif not (folder / "model.json").exists() and (folder / "config.json").exists():
        kind = f"a run; export it by `deeprank export --workdir={path} --out=MODEL`"
    if kind:
        raise ArtifactError(f"{path} is not an exported model, but {kind}.")


def check_out(
    path: str | None, suffixes: Sequence[str], inputs: Sequence[str] = ()
) -> None:
    """Checks that a file can be written at a path.

    Args:
      path: Path of the file, or None.
      suffixes: Suffixes of the files that the command writes.
      inputs: Paths of files and folders that the command reads.

    Raises:
      UserError: The suffix is another one, the path is a folder, its folder does not
        allow writing, or an input would be overwritten.
    """
    if path is None:
        return
    suffix = pathlib.Path(path).suffix
    if suffix not in suffixes:
        raise UserError(
            f"--out={path}: the name must end with {' or '.join(suffixes)}."
        )
    if os.path.isdir(path):
        raise UserError(
            f"--out={path} cannot be written, it is a folder; give the name of a file."
        )
    for name in inputs if os.path.exists(path) else ():
        is_input = os.path.realpath(path) == os.path.realpath(name)
        if is_input or (suffix == ".png" and files.is_inside(path, name)):
            raise UserError(
                f"--out={path} would overwrite a file that is read; give another name."
            )
    check_writable(path)


def check_writable(path: str) -> None:
    """Checks that the nearest folder above a path that exists allows writing.

    Raises:
      UserError: It does not.
    """
    folder = pathlib.Path(path).absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"--out={path} cannot be written: {folder} is not a folder that allows "
            "writing; give another --out."
        )


def open_images(options: argparse.Namespace) -> "tuple[Model, Records]":
    """Loads the model and lists the images of a command with `add_images`."""
    from deeprank_jax.inference.model import Model
    from deeprank_jax.inference.sources import open_source

    model = Model(options.model)
    records = open_source(
        options.source,
        data_dir=options.data_dir,
        like=model.data_config,
        label_feature=options.label_feature,
    )
    return model, records


def check_index(path: str) -> None:
    """Checks that a path may be an index.

    Raises:
      ArtifactError: There is no such folder, or it holds something else.
    """
    folder = pathlib.Path(path)
    if (folder / "index.json").exists():
        return
    reason = "there is no such folder"
    if folder.is_dir():
        reason = "it has no index.json"
    elif folder.exists():
        reason = "it is a file"
    if (folder / "model.json").exists():
        reason = "it is an exported model, which is given as --model"
    elif (folder / "config.json").exists():
        reason = "it is a run of `deeprank train`"
    raise ArtifactError(
        f"{path} is not an index: {reason}; make one with "
        "`deeprank index IMAGES --model=MODEL --out=INDEX`."
    )


def check_workdir(path: str) -> None:
    """Checks that a path may be the folder of a run.

    Raises:
      ConfigError: It holds no config.json.
    """
    if not (pathlib.Path(path) / "config.json").is_file():
        raise ConfigError(
            f"{path} is not a run, it has no config.json; give the --workdir of "
            "`deeprank train`."
        )


def check_new_folder(path: str) -> None:
    """Checks that a folder can be created at a path.

    Raises:
      UserError: The path exists and is not an empty folder, or cannot be written.
    """
    folder = pathlib.Path(path)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"--out={path} is there already: give another --out.")
    check_writable(path)
