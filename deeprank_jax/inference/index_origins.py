"""Origins of an index: the model that embedded its images, and their sources.

They are kept as `origins.json` in the index's folder, so that a search needs neither.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import json
import os
import pathlib

import ml_collections
import numpy as np

from deeprank_jax import files
from deeprank_jax.data.records import Records
from deeprank_jax.errors import ArtifactError
from deeprank_jax.inference.sources import PREFIX, open_source

_FILE = "origins.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origins:
    """Model and sources of an index.

    Attributes:
      model: Path of the exported model.
      sources: Options of `open_source` by source.
    """

    model: str
    sources: Mapping[str, Mapping[str, str]]

    def create_reader(
        self, data: ml_collections.ConfigDict
    ) -> Callable[[str], str | bytes | np.ndarray]:
        """Returns a function from an image's name to its path, bytes or pixels.

        Datasets are opened at the first name that is not a file.

        Args:
          data: `config.data` of the model in use.
        """

        @functools.cache
        def dataset_images() -> dict[str, tuple[Records, int]]:
            images: dict[str, tuple[Records, int]] = {}
            for source, options in self.sources.items():
                if source.startswith(PREFIX):
                    records = open_source(source, **options, like=data)
                    for index in range(len(records)):
                        images[records.describe(index)] = records, index
            return images

        def read(name: str) -> str | bytes | np.ndarray:
            if os.path.exists(name) or name not in dataset_images():
                return name
            records, index = dataset_images()[name]
            return records.read(index)

        return read


def write_origins(
    index: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str],
    source: str | None = None,
    data_dir: str = "data",
    label_feature: str = "",
) -> None:
    """Records the model of an index, and adds a source of its images.

    Args:
      index: Folder of the index.
      model: Path of the exported model.
      source: Folder, list file or `"tfds:NAME/SPLIT"`; None for no new source.
      data_dir: Folder of TFDS datasets.
      label_feature: Feature with the labels, see `open_source`.
    """
    path = pathlib.Path(index) / _FILE
    sources = dict(read_origins(index).sources) if path.exists() else {}
    if source is not None:
        if not source.startswith(PREFIX):
            source = os.path.abspath(source)
        sources[source] = {
            "data_dir": os.path.abspath(data_dir),
            "label_feature": label_feature,
        }
    content = {"model": os.path.abspath(model), "sources": sources}
    with files.replacing(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def read_origins(index: str | os.PathLike[str]) -> Origins:
    """Returns the model and sources of an index.

    Raises:
      ArtifactError: The folder is not an index, or its list of origins is damaged.
    """
    path = pathlib.Path(index) / _FILE
    try:
        return Origins(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(
            f"{index} is not an index of `deeprank index` (its {_FILE} cannot be read: "
            f"{error}); create one with "
            "`deeprank index IMAGES --model=MODEL --out=INDEX`."
        ) from error
