"""Damaged tables of embeddings, and damaged parts of an unfinished one."""

import pathlib
from unittest import mock

from deeprank_jax.inference import embedding_table
from deeprank_jax.inference.model import Model
from deeprank_jax.inference.sources import open_source
from tools.faults.samples import Samples
from tools.faults.stored import Stored, digest

_NAME = "photos.parquet"
# Images of a part, so that the few images make several.
_PART_SIZE = 16


class EmbeddingTable(Stored):
    """Table that `deeprank embed` has written."""

    def create(self, samples: Samples, folder: pathlib.Path) -> None:
        """Embeds the images."""
        _embed(Model(samples.model), samples.images, folder)

    def read(self, folder: pathlib.Path) -> object:
        """Returns the table's content."""
        return _read(folder)


class EmbedParts(Stored):
    """Parts of a table, left by a process that was killed before it joined them."""

    def create(self, samples: Samples, folder: pathlib.Path) -> None:
        """Embeds the images, and stops before the parts are joined."""
        self._model, self._images = Model(samples.model), samples.images
        with mock.patch.object(embedding_table, "_join", side_effect=InterruptedError):
            try:
                _embed(self._model, self._images, folder)
            except embedding_table.CannotWriteError:
                return

    def read(self, folder: pathlib.Path) -> object:
        """Returns the content of the table that the same command writes now."""
        _embed(self._model, self._images, folder)
        names = sorted(path.name for path in folder.iterdir())
        return _read(folder), names


def _embed(model: Model, images: pathlib.Path, folder: pathlib.Path) -> None:
    with mock.patch.object(embedding_table, "_PART_SIZE", _PART_SIZE):
        embedding_table.embed_to_file(
            model,
            open_source(images),
            folder / _NAME,
            progress=lambda *state: None,
        )


def _read(folder: pathlib.Path) -> object:
    paths, labels, embeddings, fingerprint = embedding_table.read_table(folder / _NAME)
    return paths, labels, digest(embeddings), fingerprint
