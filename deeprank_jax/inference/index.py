"""Searchable images: the embeddings of one model in a folder, searched by image.

`deeprank_jax.search.index` holds the vectors; this module adds the model, the images
and their labels.
"""

from collections.abc import Callable, Collection
import os
import pathlib
from typing import Self

import numpy as np

from deeprank_jax.data.reader import BadImages
from deeprank_jax.data.records import Records
from deeprank_jax.errors import ArtifactError, DataError
from deeprank_jax.inference import bulk, image_versions, index_origins
from deeprank_jax.inference.image_versions import Changes, Versions
from deeprank_jax.inference.images import AnyImage
from deeprank_jax.inference.model import Model
from deeprank_jax.inference.results import (
    IndexChanges,
    SearchResult,
    create_search_result,
)
from deeprank_jax.inference.sources import ImageSource, absolute_source
from deeprank_jax.progress import Progress
from deeprank_jax.search import store
from deeprank_jax.search.index import VectorIndex

# Number of images per commit, unreadable ones included.
_PART_SIZE = 1024


class Index:
    """Searchable images of one model.

    An index is a folder. One process at a time can add to it; use it as a context
    manager, or call `close`, to let the next one do so:

      with Index.create("photos.index", model) as index:
          index.add("photos")
      result = Index.open("photos.index").search("query.jpg", k=5)
    """

    def __init__(self, vectors: VectorIndex, model: Model, path: pathlib.Path):
        """Holds an open index; use `create` or `open`.

        Args:
          vectors: Embeddings, ids and labels.
          model: Model of the embeddings.
          path: Folder of the index.
        """
        self._vectors, self.model, self.path = vectors, model, path

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        model: Model | str | os.PathLike[str],
        *,
        metric: str = "squared_euclidean",
        kind: str = "auto",
    ) -> Self:
        """Creates an empty index and opens it for writing.

        Args:
          path: Folder that does not exist yet, or is empty.
          model: Exported model or its folder.
          metric: Distance metric, `"squared_euclidean"` or `"cosine"` (1 - cosine).
          kind: `"exact"`, `"hnsw"` (approximate, needs FAISS) or `"auto"`, which
            changes from exact to hnsw above 200,000 images if FAISS is installed.

        Raises:
          ArtifactError: The folder is not empty, or the model cannot be read.
          DataError: The metric or kind is unknown.
        """
        path = pathlib.Path(path).expanduser()
        model = model if isinstance(model, Model) else Model(model)
        vectors = VectorIndex.create(
            path,
            dim=model.embedding_dim,
            model_fingerprint=model.fingerprint,
            metric=metric,
            kind=kind,
        )
        index_origins.write_origins(path, model=model.artifact.path)
        return cls(vectors, model, path)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        model: Model | str | os.PathLike[str] | None = None,
        *,
        writable: bool = False,
    ) -> Self:
        """Opens an index.

        Args:
          path: Folder of the index.
          model: Exported model or its folder; None for the model that the index was
            created with, in its place at that time.
          writable: True to add or delete images; one process at a time can.

        Raises:
          ArtifactError: The folder is not an index, it is damaged, it has the
            embeddings of another model, or another process writes to it.
        """
        path = pathlib.Path(path).expanduser()
        if not isinstance(model, Model):
            model = Model(model or index_origins.read_origins(path).model)
        vectors = VectorIndex.open(
            path, model_fingerprint=model.fingerprint, writable=writable
        )
        return cls(vectors, model, path)

    @classmethod
    def open_or_create(
        cls,
        path: str | os.PathLike[str],
        model: Model | str | os.PathLike[str],
        *,
        metric: str | None = None,
        kind: str | None = None,
    ) -> Self:
        """Opens an index for writing; creates it if there is none.

        Args:
          path: Folder of the index.
          model: Exported model or its folder.
          metric: Metric of a new index, which an existing one must have; None for any.
          kind: Kind of a new index, which an existing one must have; None for any.

        Raises:
          ArtifactError: As `open` and `create`.
          DataError: The existing index has another metric or kind.
        """
        path = pathlib.Path(path).expanduser()
        if not (path / store.MANIFEST).exists():
            options = {"metric": metric or "squared_euclidean", "kind": kind or "auto"}
            try:
                return cls.create(path, model, **options)
            except ArtifactError:
                # Unless another process has just created it.
                if not (path / store.MANIFEST).exists():
                    raise
        index = cls.open(path, model, writable=True)
        for name, requested, actual in (
            ("metric", metric, index.metric),
            ("kind", kind if kind != "auto" else None, index.kind),
        ):
            if requested not in (None, actual):
                index.close()
                raise DataError(
                    f"{path} exists already with the {name} {actual}, not {requested}: "
                    f"leave out the {name}, or name another folder for a new index."
                )
        return index

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the index."""
        self.close()

    def close(self) -> None:
        """Releases the lock of the writer; the index can still be searched."""
        self._vectors.close()

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._vectors)

    def __repr__(self) -> str:
        """Returns the index's folder and its main properties."""
        return (
            f"<Index {self.path}: {len(self):,} images, {self.kind}, {self.metric}, "
            f"model {self.model.artifact.path}>"
        )

    @property
    def vectors(self) -> VectorIndex:
        """Returns the embeddings by path."""
        return self._vectors

    @property
    def metric(self) -> str:
        """Returns the distance metric, `"squared_euclidean"` or `"cosine"`."""
        return self._vectors.metric

    @property
    def kind(self) -> str:
        """Returns the search method in use, `"exact"` or `"hnsw"`."""
        return self._vectors.kind

    @property
    def threshold(self) -> float | None:
        """Returns the largest distance of similar images, in the index's metric."""
        distance = self.model.cluster_distance
        if distance is None or self.metric != "cosine":
            return distance
        # The squared distance of two unit vectors is twice their 1 - cosine.
        return distance / 2

    def paths(self) -> list[str]:
        """Returns the path of each image, in the order of adding."""
        return self._vectors.ids()

    @property
    def num_unlabelled(self) -> int:
        """Returns the number of images without a label."""
        return sum(not label for label in self._vectors.labels().values())

    def label_names(self) -> set[str]:
        """Returns the labels of the images; images without a label have none."""
        return self._vectors.label_names()

    def add(
        self,
        images: ImageSource,
        *,
        data_dir: str = "data",
        label_feature: str = "",
        progress: Progress | None = None,
    ) -> int:
        """Adds the images of a collection that the index does not have yet.

        Images with another content or label than before are embedded again. Of a
        folder, images whose files are gone are deleted from the index. Images that
        cannot be read are left out and named in the log; of those that cannot be
        reached, the index keeps what it has. Every thousand images are
        committed, so that a process that is killed loses little.

        Args:
          images: Collection of images, see `Model`.
          data_dir: Folder of TFDS datasets.
          label_feature: Feature with the labels of a TFDS dataset that the model was
            not trained on.
          progress: Function that receives the progress; None for a bar on a terminal.

        Returns:
          The number of images added.

        Raises:
          ArtifactError: The index is open for reading, or cannot be written.
          DataError: There is no such collection, or no new image can be read.
        """
        self._vectors.check_writable("add")
        # With absolute paths, images are found from any working directory.
        images = absolute_source(images)
        records = self.model.open_images(
            images, data_dir=data_dir, label_feature=label_feature
        )
        source = images if isinstance(images, str) else None
        changes = self._add_records(records, source, data_dir, label_feature, progress)
        return changes.added

    def _add_records(
        self,
        records: Records,
        source: str | None,
        data_dir: str,
        label_feature: str,
        progress: Progress | None,
    ) -> IndexChanges:
        index_origins.write_origins(
            self.path,
            model=self.model.artifact.path,
            source=source,
            data_dir=data_dir,
            label_feature=label_feature,
            paths=index_origins.outer_paths(records, source),
        )
        versions = Versions(self.path)
        folder = source if source is not None and os.path.isdir(source) else None
        changes = versions.compare(self.paths(), records, folder)
        bad = BadImages(None, len(records), max_share=1.0)
        embedded, replaced = self._embed(records, versions, changes, bad, progress)
        unread = changes.changed.keys() - embedded - replaced
        unreachable = [
            *changes.unreachable, *(changes.changed[i] for i in sorted(unread))
        ]  # fmt: skip
        first = image_versions.warn_of_unreachable(records.name, unreachable)
        if bad.num_bad + len(changes.unreachable) == len(records):
            raise bulk.none_readable(records.name, len(records), bad.first or first)
        # What is there now is no image, and no longer what was embedded.
        not_images = [changes.changed[i] for i in sorted(replaced)]
        self._vectors.delete([*changes.removed, *not_images])
        versions.compact(self.paths())
        if self.kind == "hnsw":
            self._vectors.prepare()
        num_updated = len(embedded & changes.changed.keys())
        return IndexChanges(
            added=len(embedded) - num_updated,
            updated=num_updated,
            removed=len(changes.removed) + len(not_images),
            unreadable=bad.num_bad,
        )

    def _embed(
        self,
        records: Records,
        versions: Versions,
        changes: Changes,
        bad: BadImages,
        progress: Progress | None,
    ) -> tuple[set[int], set[int]]:
        """Embeds and commits records.

        Returns:
          Indices of embedded records, and of changed ones that are no images any more.
        """
        embedded: set[int] = set()
        old_labels = self._vectors.labels() if changes.changed else {}
        records, version, read_indices = versions.watch(records)
        parts = bulk.embed_parts(
            self.model,
            records,
            np.array(sorted([*changes.new, *changes.changed]), int),
            _PART_SIZE,
            bad=bad,
            progress=progress,
        )
        for embeddings, indices in parts:
            if not len(indices):
                continue
            places = indices.tolist()
            ids = [changes.changed.get(i) or records.describe(i) for i in places]
            # The version has the label of a row that was deleted just before a kill.
            labels = [
                records.label_name(i) or old_labels.get(x) or versions.label(x)
                for i, x in zip(places, ids, strict=True)
            ]
            self._vectors.delete(
                [changes.changed[i] for i in places if i in changes.changed]
            )
            # Before the rows: after a kill, a version without a row does no harm.
            versions.add(
                (name, version(i, label))
                for i, name, label in zip(places, ids, labels, strict=True)
            )
            self._vectors.add(ids, embeddings, labels)
            embedded |= set(places)
        return embedded, changes.changed.keys() & read_indices

    def delete(self, paths: Collection[str]) -> None:
        """Deletes images from the index; their files stay.

        Args:
          paths: Paths as `paths` returns them.

        Raises:
          ArtifactError: The index is open for reading, or cannot be written.
          DataError: A path is not in the index.
        """
        self._vectors.delete(paths)

    def search(
        self,
        image: AnyImage,
        k: int = 10,
        *,
        labels: str | Collection[str] | None = None,
        include_query: bool = False,
    ) -> SearchResult:
        """Finds the images nearest to one image.

        An exact index finds the nearest, and images at the same distance come in the
        order of adding. An index of the kind `"hnsw"` may miss some.

        Args:
          image: Image to search with: a path, bytes, a PIL image or an array.
          k: Number of hits.
          labels: Label, or labels, of the hits; None for any.
          include_query: True to keep the query, if its file is in the index.

        Returns:
          At most `k` hits, nearest first; none if no image has such a label.

        Raises:
          BadImageError: The image cannot be read.
          ArtifactError: The index is damaged.
          DataError: The index is empty, or `k` is below 1.
        """
        query = self.model.embed([image])
        # One more, as the query itself may be among them.
        num = k + 1 if k >= 1 and not include_query else k
        neighbors = self._vectors.search(query, num, labels=labels)
        rows = [i for i, path in enumerate(neighbors.ids[0]) if path is not None]
        return create_search_result(
            image,
            [str(neighbors.ids[0][i]) for i in rows],
            [neighbors.labels[0][i] for i in rows],
            neighbors.distances[0][rows],
            self.threshold,
            k=k,
            include_query=include_query,
            is_unfamiliar=self.model.is_unfamiliar(query[0]),
        )

    def create_reader(self) -> Callable[[str], str | bytes | np.ndarray]:
        """Returns a function from an image's path to its path, bytes or pixels.

        It reads images of TFDS datasets, too, whose paths are not files.
        """
        origins = index_origins.read_origins(self.path)
        return origins.create_reader(self.model.data_config)


def index_images(
    path: str | os.PathLike[str],
    model: Model,
    images: ImageSource,
    *,
    metric: str | None = None,
    kind: str | None = None,
    data_dir: str = "data",
    label_feature: str = "",
    progress: Progress | None = None,
) -> tuple[Index, IndexChanges]:
    """Adds images to an index, which is created if there is none; see `Index.add`.

    Args:
      path: Folder of the index.
      model: Exported model.
      images: Collection of images, see `Model`.
      metric: Metric of the index, see `Index.open_or_create`.
      kind: Kind of the index, see `Index.open_or_create`.
      data_dir: Folder of TFDS datasets.
      label_feature: Feature with the labels of a TFDS dataset.
      progress: Function that receives the progress; None for a bar on a terminal.

    Returns:
      The index, ready to be searched, and the numbers of images that changed.

    Raises:
      ArtifactError: As `Index.open_or_create`.
      DataError: As `Index.open_or_create` and `Index.add`.
    """
    images = absolute_source(images)
    # Opened first: a missing folder must not leave an empty index behind.
    records = model.open_images(images, data_dir=data_dir, label_feature=label_feature)
    source = images if isinstance(images, str) else None
    with Index.open_or_create(path, model, metric=metric, kind=kind) as index:
        changes = index._add_records(records, source, data_dir, label_feature, progress)
    return index, changes
