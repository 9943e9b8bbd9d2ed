"""Commands that follow a finished run, as its report shows them."""

import os
import pathlib
import shlex

import ml_collections

# Folder of images in commands of a run whose images no command can list.
_PHOTOS = "photos"


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
    return {
        "Export the model": _join("export", f"--workdir={workdir}", f"--out={model}"),
        "Index images": _join(
            "index", *_images(config), f"--model={model}", f"--out={index}"
        ),
        "Search them": _join(
            "search", "query.jpg", f"--index={index}", "--out=found.html"
        ),
        "Compare with another run": _join("compare-runs", str(workdir), "runs/OTHER"),
    }


def _images(config: ml_collections.ConfigDict) -> list[str]:
    """Returns the words that name the run's images as a source of a command."""
    source, directory = config.data.source, config.data.dir
    if source.name in ("folder", "manifest"):
        return [directory]
    dataset = {"emoji": "emoji", "tfds": source.get("dataset")}.get(source.name)
    if not dataset:
        return [_PHOTOS]
    words = [f"tfds:{dataset}/test"]
    return words if directory in ("", "data") else [*words, f"--data_dir={directory}"]


def _join(*words: str) -> str:
    return shlex.join(["deeprank", *words])
