"""Origins of an index: the model that embedded its images, and their sources.

They are kept as `origins.json` in the index's folder, so that a search needs neither.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
import json
import os
import pathlib

import ml_collections
import numpy as np

from deeprank_jax import checksums, files
from deeprank_jax.data.real_paths import RealPaths
from deeprank_jax.data.records import Records
from deeprank_jax.errors import ArtifactError
from deeprank_jax.inference.sources import PREFIX, open_source

_FILE = "origins.json"
_MAX_ROOTS = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origins:
    """Model and sources of an index.

    Attributes:
      model: Path of the exported model.
      sources: Options of `open_source` by source.
      roots: Folders that hold the images of lists, and of links in a source.
    """

    model: str
    sources: Mapping[str, Mapping[str, str]]
    roots: Sequence[str] = ()

    def __post_init__(self):
        """Checks the types, as the file may be a stranger's."""
        options = [x for y in self.sources.values() for x in (*y.keys(), *y.values())]
        texts = [self.model, *self.sources, *self.roots, *options]
        if not isinstance(self.roots, list | tuple):
            raise TypeError("roots is no list")
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a name is no text")
        for names in self.sources.values():
            if not names.keys() <= {"data_dir", "label_feature"}:
                raise TypeError(f"it has the options {', '.join(names)}")

    def _has(self, path: str) -> bool:
        """Returns whether a path lies below the folders that were indexed."""
        folders = [x for x in self.sources if not x.startswith(PREFIX)]
        # A list that was indexed before its roots were kept has its own folder.
        folders = [x if os.path.isdir(x) else os.path.dirname(x) for x in folders]
        real = os.path.realpath(path)
        return any(
            os.path.realpath(folder) != os.path.sep and files.is_inside(real, folder)
            for folder in (*folders, *self.roots)
        )

    def create_reader(
        self, data: ml_collections.ConfigDict
    ) -> Callable[[str], str | bytes | np.ndarray]:
        """Returns a function from an image's name to its path, bytes or pixels.

        Datasets are opened at the first name that is not a file. Files are read only
        below the folders that were indexed; the function raises an `ArtifactError` for
        others, as the names may be a stranger's.

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
            if self._has(name):
                return name
            if os.path.isabs(name) or name not in dataset_images():
                raise ArtifactError(
                    f"{files.printable(name)} is not below the folders that were "
                    f"indexed; create the index again, or add them to {_FILE}."
                )
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
    paths: Iterable[str] = (),
) -> None:
    """Records the model of an index, and adds a source of its images.

    Args:
      index: Folder of the index.
      model: Path of the exported model.
      source: Folder, list file or `"tfds:NAME/SPLIT"`; None for no new source.
      data_dir: Folder of TFDS datasets.
      label_feature: Feature with the labels, see `open_source`.
      paths: Paths of images outside the source, see `outer_paths`.
    """
    path = pathlib.Path(index) / _FILE
    origins = read_origins(index) if path.exists() else Origins(model="", sources={})
    sources = dict(origins.sources)
    roots = _common_folders({*origins.roots, *map(os.path.dirname, paths)})
    if source is not None:
        if not source.startswith(PREFIX):
            source = os.path.abspath(source)
        sources[source] = {
            "data_dir": os.path.abspath(data_dir),
            "label_feature": label_feature,
        }
    content = {"model": os.path.abspath(model), "sources": sources, "roots": roots}
    content = checksums.seal_json(content)
    with files.replacing(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def outer_paths(records: Records, source: str | None) -> Iterator[str]:
    """Yields the paths of images outside one folder, and those that their links mean.

    Args:
      records: Images of the source.
      source: Source as for `write_origins`.
    """
    is_dataset = source is not None and source.startswith(PREFIX)
    is_folder = source is not None and not is_dataset and os.path.isdir(source)
    real_folder = os.path.join(os.path.realpath(source), "") if is_folder else None
    real_paths = RealPaths()
    for index in range(0 if is_dataset else len(records)):
        if not os.path.isabs(path := records.describe(index)):
            continue
        if real_folder is None:
            yield path
        real = real_paths.of(path)
        if real_folder is None or not real.startswith(real_folder):
            yield real


def _common_folders(folders: Iterable[str]) -> list[str]:
    """Returns at most `_MAX_ROOTS` folders that hold all of `folders`."""
    roots = {os.path.abspath(folder) for folder in folders}
    while len(roots) > _MAX_ROOTS:
        depth = max(root.count(os.path.sep) for root in roots)
        roots = {
            os.path.dirname(root) if root.count(os.path.sep) == depth else root
            for root in roots
        }
    return sorted(roots)


def read_origins(index: str | os.PathLike[str]) -> Origins:
    """Returns the model and sources of an index.

    Raises:
      ArtifactError: The folder is not an index, or its list of origins is damaged.
    """
    path = pathlib.Path(index) / _FILE
    try:
        return Origins(**checksums.unseal_json(files.read_json(path)))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{index} is not an index of `deeprank index` (its {_FILE} cannot be read: "
            f"{error}); create one with "
            "`deeprank index IMAGES --model=MODEL --out=INDEX`."
        ) from error
