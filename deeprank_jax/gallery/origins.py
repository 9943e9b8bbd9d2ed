"""Where do the images of an index come from, and which model embedded them?

`origins.json` in the index's folder says it, so that a search needs neither again.
"""

from collections.abc import Mapping
import dataclasses
import functools
import json
import os
import pathlib
from typing import Any

import ml_collections

from deeprank_jax import artifact
from deeprank_jax.data import errors
from deeprank_jax.gallery.source import PREFIX, open_source

_FILE = "origins.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origins:
    """What an index was made of.

    Attributes:
      model: the path of the exported model.
      sources: what `open_source` was given, by name: the options of each.
    """

    model: str
    sources: Mapping[str, Mapping[str, str]]

    def image(self, name: str) -> str | bytes | Any:
        """Returns a path, or what a dataset holds: what can be decoded.

        Args:
          name: by which the index knows the image.
        """
        if name in self._of_datasets:
            records, index = self._of_datasets[name]
            return records.read(index)
        return name

    @functools.cached_property
    def _of_datasets(self) -> dict[str, tuple[Any, int]]:
        found: dict[str, tuple[Any, int]] = {}
        for source, options in self.sources.items():
            if source.startswith(PREFIX):
                like = _data_config(self.model)
                records = open_source(source, **options, like=like)
                for index in range(len(records)):
                    found[records.describe(index)] = records, index
        return found


def remember(
    index: str | os.PathLike[str], *, model: str, source: str, data_dir: str
) -> None:
    """Adds a source to what an index was made of.

    Args:
      index: its folder.
      model: the path of the exported model.
      source: what `open_source` was given.
      data_dir: where TFDS keeps its datasets.
    """
    path = pathlib.Path(index) / _FILE
    sources = dict(recall(index).sources) if path.exists() else {}
    if not source.startswith(PREFIX):
        source = os.path.abspath(source)
    sources[source] = {"data_dir": os.path.abspath(data_dir)}
    scratch = path.with_suffix(".tmp")
    told = {"model": os.path.abspath(model), "sources": sources}
    scratch.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    scratch.replace(path)


def recall(index: str | os.PathLike[str]) -> Origins:
    """Returns what an index was made of.

    Raises:
      DataError: it does not say.
    """
    path = pathlib.Path(index) / _FILE
    try:
        return Origins(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise errors.DataError(
            f"{index} is no index of `deeprank index` (its {_FILE} cannot be read: "
            f"{error}); make one with "
            "`deeprank index IMAGES --model=MODEL --out=INDEX`."
        ) from error


def _data_config(model: str) -> ml_collections.ConfigDict:
    text = (pathlib.Path(model) / artifact.CONFIG).read_text(encoding="utf-8")
    return ml_collections.ConfigDict(json.loads(text)["data"])
