"""Where do the images of an index come from, and which model embedded them?

`origins.json` in the index's folder says it, so that a search needs neither again.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import json
import os
import pathlib
from typing import Any

import ml_collections

from deeprank_jax import errors, files
from deeprank_jax.inference.sources import PREFIX, open_source

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

    def create_finder(self, data: ml_collections.ConfigDict) -> Callable[[str], Any]:
        """Returns a function from an image's name to what can be decoded.

        That is its path, or what a dataset holds; datasets are opened at the first
        name that is of none of the files.

        Args:
          data: the `config.data` of the model in use.
        """

        @functools.cache
        def of_datasets() -> dict[str, tuple[Any, int]]:
            found: dict[str, tuple[Any, int]] = {}
            for source, options in self.sources.items():
                if source.startswith(PREFIX):
                    records = open_source(source, **options, like=data)
                    for index in range(len(records)):
                        found[records.describe(index)] = records, index
            return found

        def find(name: str) -> Any:
            if os.path.exists(name) or name not in of_datasets():
                return name
            records, index = of_datasets()[name]
            return records.read(index)

        return find


def remember(
    index: str | os.PathLike[str],
    *,
    model: str,
    source: str,
    data_dir: str,
    label_feature: str = "",
) -> None:
    """Adds a source to what an index was made of.

    Args:
      index: its folder.
      model: the path of the exported model.
      source: what `open_source` was given.
      data_dir: where TFDS keeps its datasets.
      label_feature: as of `open_source`.
    """
    path = pathlib.Path(index) / _FILE
    sources = dict(recall(index).sources) if path.exists() else {}
    if not source.startswith(PREFIX):
        source = os.path.abspath(source)
    sources[source] = {
        "data_dir": os.path.abspath(data_dir),
        "label_feature": label_feature,
    }
    told = {"model": os.path.abspath(model), "sources": sources}
    with files.replacing(path) as file:
        file.write((json.dumps(told, indent=2) + "\n").encode())


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
