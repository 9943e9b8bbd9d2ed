"""Commands that follow a finished run, as its report shows them."""

import os
import pathlib
import shlex

import ml_collections

from deeprank_jax import files
from deeprank_jax.data.sources import tfds

# Folder of images in commands of a run whose images no command can list.
_PHOTOS = "photos"
# Folder of datasets that commands use by default.
_DATA_DIR = "data"


def next_commands(
    config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]
) -> dict[str, str]:
    """Returns the commands to use a run's model, by what they do.

    Args:
      config: Whole configuration of the run.
      workdir: Folder of the run, as it was given.
    """
    name = pathlib.Path(workdir).absolute().name
    model, index = f"models/{name}", f"{name}.index"
    export = _join("export", f"--workdir={workdir}", f"--out={model}")
    compare = _join("compare-runs", str(workdir), "runs/OTHER")
    if config.data.source.name == "tiles":  # An index is of whole images.
        words = ("slide.tif", f"--model={model}", "--at=1200,800", "--out=map.png")
        return {
            "Export the model": export,
            "Map the tiles like one of them": _join("tile-map", *words),
            "Compare with another run": compare,
        }
    return {
        "Export the model": export,
        "Index images": _join(
            "index", *_images(config), f"--model={model}", f"--out={index}"
        ),
        "Search them": _join(
            "search", "query.jpg", f"--index={index}", "--out=found.html"
        ),
        "Compare with another run": compare,
    }


def _images(config: ml_collections.ConfigDict) -> list[str]:
    """Returns the words that name the run's images as a source of a command."""
    source, directory = config.data.source, config.data.dir
    if source.name in ("folder", "manifest", "unlabelled"):
        return [_shorten(directory)]
    if source.name not in ("tfds", *tfds.OWN_DATASETS):
        return [_PHOTOS]
    dataset = source.get("dataset", source.name)
    words = [f"tfds:{dataset}/test"]
    if files.absolute(directory) in ("", files.absolute(_DATA_DIR)):
        return words
    return [*words, f"--data_dir={_shorten(directory)}"]


def _shorten(path: str) -> str:
    """Returns a path as it is typed here: relative below the working directory."""
    path = files.absolute(path)
    if pathlib.Path(path).is_relative_to(pathlib.Path.cwd()):
        return os.path.relpath(path)
    return path


def _join(*words: str) -> str:
    return shlex.join(["deeprank", *words])
