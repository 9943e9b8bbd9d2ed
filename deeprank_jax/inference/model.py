"""An exported model in use: embeds, compares, searches and groups images.

The model runs the exported program and needs none of the code that trained it.
"""

from collections.abc import Iterable, Iterator
import os
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from deeprank_jax import errors
from deeprank_jax.data.records import Records
from deeprank_jax.errors import ArtifactError
from deeprank_jax.inference import (
    artifact,
    bulk,
    copies,
    familiarity,
    label_errors,
    model_info,
    program,
    similarity_maps,
    sources,
)
from deeprank_jax.inference import images as images_lib
from deeprank_jax.inference.bulk import BATCH_SIZE
from deeprank_jax.inference.familiarity import Familiarity
from deeprank_jax.inference.images import AnyImage, decode
from deeprank_jax.inference.label_errors import LabelErrors
from deeprank_jax.inference.results import (
    Comparison,
    EmbeddedImages,
    ImageGroups,
    SearchResult,
    create_comparison,
    create_groups,
    create_search_result,
    labels_of,
    paths_of,
)
from deeprank_jax.inference.similarity_maps import SimilarityMaps
from deeprank_jax.inference.sources import ImageSource
from deeprank_jax.progress import Progress, reporting
from deeprank_jax.search import grouping

__all__ = ["BATCH_SIZE", "AnyImage", "Comparison", "Model", "decode"]

# Batch size of few images, so that one image does not cost a whole batch.
_FEW = 8


class Model:
    """An exported model.

    Methods that take a collection accept a folder, a list of files (`.txt`, `.csv` or
    `.parquet`), `"tfds:NAME/SPLIT"` or a sequence of paths. Images of a collection that
    cannot be read are left out and named in the log.

    Attributes:
      artifact: Folder of the model and the contents of its `model.json`.
      embedding_dim: Number of dimensions of an embedding.
      image_size: Height and width of the network's input, in pixels.
      threshold: Largest squared distance of similar images, calibrated on pairs of
        which half are of one class; None if the model has none.
      no_threshold: Reason that it has none; empty if it has, or none is known.
      cluster_distance: Largest squared distance of similar images in a collection,
        where one pair in ten is of one class; None if the model has none.
      familiarity: Tells which images are far from all of training; None if the model
        does not know.
      fingerprint: Identifier of the weights and preprocessing; embeddings of models
        with different fingerprints cannot be compared.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Reads an exported model.

        Args:
          path: Folder of the model.

        Raises:
          ArtifactError: The folder is not an exported model, a file is damaged or
            not what it should be, or the program is refused.
        """
        self.artifact = artifact.read_artifact(path)
        info, self._config = self.artifact.info, model_info.read_config(self.artifact)
        self.fingerprint: str = info["fingerprint"]
        self.embedding_dim: int = info["agreement"]["dim"]
        self.image_size: int = info["preprocessing"]["image_size"]
        self.threshold: float | None = None
        if info["threshold"]:
            self.threshold = info["threshold"]["distance"]
        self.no_threshold: str = info.get("no_threshold", "")
        self.cluster_distance: float | None = info["cluster_distance"]
        self.familiarity: Familiarity | None = None
        if info.get("familiar"):
            path = self.artifact.file(familiarity.FILE)
            entry = info["familiar"]
            self.familiarity = Familiarity(path, entry, self.embedding_dim)
        program.ensure_checked(self.artifact)
        weights = artifact.read_weights(self.artifact)
        self._call = jax.jit(program.read_program(self.artifact, weights).call)
        self._weights = jax.device_put(weights)

    def __repr__(self) -> str:
        """Returns the model's folder and its main properties."""
        size, threshold = self.image_size, self.threshold
        return (
            f"<Model {self.artifact.path}: {self.embedding_dim} dimensions, "
            f"{size}x{size} pixels, task {self.task}, trained on {self.trained_on}, "
            + ("no threshold>" if threshold is None else f"threshold {threshold:.4g}>")
        )

    @property
    def task(self) -> str:
        """Returns the task of the training, e.g. `"ranking"`."""
        task = self._config["task"]
        return task if isinstance(task, str) else task["name"]

    @property
    def trained_on(self) -> str:
        """Returns the name of the training dataset, of a folder with its name."""
        name = self.artifact.info["dataset"]["name"]
        if name not in ("folder", "manifest", "tiles", "unlabelled"):
            return name
        return f"{name} {pathlib.PurePath(self.data_config.dir).name}"

    @property
    def config(self) -> ml_collections.ConfigDict:
        """Returns the config of the exported run."""
        return ml_collections.ConfigDict(self._config)

    @property
    def data_config(self) -> ml_collections.ConfigDict:
        """Returns the `config.data` of the exported run."""
        return ml_collections.ConfigDict(self._config["data"])

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Returns the preprocessing of images: `image_size`, `fit` and `max_pixels`."""
        return self.artifact.info["preprocessing"]

    def embed(
        self,
        images: AnyImage | Iterable[AnyImage],
        *,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Returns embeddings `[N, D]` float32, of one image `[1, D]`.

        Args:
          images: A path, an encoded image, a PIL image or an array `[H, W]`,
            `[H, W, 1]`, `[H, W, 3]` or `[H, W, 4]` of uint8 or uint16; or several of
            them: a list, a NumPy array or pandas Series of paths, or an array
            `[N, H, W, 3]`.
          progress: Function that receives the progress, called as
            `progress(done, total, description)`; None for no reports.

        Raises:
          BadImageError: An image cannot be read; the message names it.
        """
        several = images_lib.as_sequence(images)
        size = BATCH_SIZE if len(several) > _FEW else _FEW

        def batches() -> Iterator[np.ndarray]:
            for start in range(0, len(several), size):
                chunk = enumerate(several[start : start + size], start)
                yield np.stack(
                    [
                        images_lib.prepare(image, f"image {i}", self.preprocessing)
                        for i, image in chunk
                    ]
                )

        pieces = [np.zeros((0, self.embedding_dim), np.float32)]
        report = progress or (lambda done, total, description: None)
        with reporting(len(several), "embed", report) as advance:
            for embeddings in self.embed_batches(batches()):
                pieces.append(embeddings)
                advance(len(embeddings))
        return np.concatenate(pieces)

    def embed_prepared(self, images: np.ndarray) -> np.ndarray:
        """Returns embeddings `[N, D]` float32 of uint8 images `[N, S, S, 3]`.

        Args:
          images: Images of the network's input size.
        """
        size = BATCH_SIZE if len(images) > _FEW else _FEW
        starts = range(0, len(images), size)
        pieces = self.embed_batches(images[start : start + size] for start in starts)
        return np.concatenate([np.zeros((0, self.embedding_dim), np.float32), *pieces])

    def embed_batches(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the embeddings of each batch, while the next one is being prepared.

        Args:
          batches: uint8 `[n, S, S, 3]`, batches of at most `BATCH_SIZE` images.

        Raises:
          ArtifactError: An embedding is not finite.
        """
        pending = None
        for batch in batches:
            size = _FEW if len(batch) <= _FEW else BATCH_SIZE
            padded = np.pad(batch, ((0, size - len(batch)), *((0, 0),) * 3))
            started = self._call(self._weights, padded), len(batch)
            if pending is not None:
                yield self._finished(*pending)
            pending = started
        if pending is not None:
            yield self._finished(*pending)

    def _finished(self, embeddings: jax.Array, num: int) -> np.ndarray:
        """Waits for a padded batch and returns its first `num` rows.

        Raises:
          ArtifactError: A row is not finite.
        """
        rows = np.asarray(embeddings)[:num]
        if not np.isfinite(rows).all():
            raise ArtifactError(
                f"{self.artifact.path}: the model gives embeddings that are not "
                "finite, so its weights are wrong; export another run."
            )
        return rows

    def embed_folder(
        self,
        images: ImageSource,
        *,
        data_dir: str = "data",
        label_feature: str = "",
        progress: Progress | None = None,
    ) -> EmbeddedImages:
        """Embeds all readable images of a folder or another collection.

        Args:
          images: Collection of images, see `Model`.
          data_dir: Folder of TFDS datasets.
          label_feature: Feature with the labels of a TFDS dataset that the model was
            not trained on.
          progress: Function that receives the progress; None for a bar on a terminal.

        Raises:
          DataError: There is no such collection, or none of its images can be read.
        """
        records = self.open_images(
            images, data_dir=data_dir, label_feature=label_feature
        )
        embeddings, indices = bulk.embed_records(self, records, progress=progress)
        unreadable = np.setdiff1d(np.arange(len(records)), indices)
        return EmbeddedImages(
            embeddings=embeddings,
            paths=paths_of(records, indices),
            labels=labels_of(records, indices),
            unreadable=paths_of(records, unreadable),
        )

    def compare(self, one: AnyImage, other: AnyImage) -> Comparison:
        """Returns the similarity of two images.

        Raises:
          BadImageError: An image cannot be read; the message names it.
        """
        rows = self.embed([one, other])
        return create_comparison(
            rows, self.threshold, self.no_threshold, *map(self.is_unfamiliar, rows)
        )

    def similarity_maps(
        self, one: AnyImage, other: AnyImage, *, progress: Progress | None = None
    ) -> SimilarityMaps:
        """Returns the places where two images are similar; embeds 64 copies of each.

        Raises:
          BadImageError: An image cannot be read; the message names it.
        """
        return similarity_maps.find_maps(self, one, [other], progress=progress)[0]

    def is_unfamiliar(self, row: np.ndarray) -> bool | None:
        """Returns whether an embedding `[D]` is far from those of all training images.

        Farther than 99 % of validation images; None if the model does not know.
        """
        if self.familiarity is None:
            return None
        return bool(self.familiarity.is_unfamiliar(row[None])[0])

    def search(
        self,
        image: AnyImage,
        images: ImageSource,
        k: int | None = 10,
        *,
        include_query: bool = False,
        progress: Progress | None = None,
    ) -> SearchResult:
        """Finds the images of a collection nearest to one image, exactly.

        All images are embedded for each call; `deeprank_jax.Index` keeps embeddings.

        Args:
          image: Image to search with.
          images: Collection to search, see `Model`.
          k: Number of hits; None for all images.
          include_query: True to keep the query, if its file is in the collection.
          progress: Function that receives the progress; None for a bar on a terminal.

        Raises:
          BadImageError: The query image cannot be read.
          DataError: There is no such collection, or none of its images can be read.
        """
        if k is not None and k < 1:
            raise errors.DataError(f"k must be at least 1, got {k}.")
        records = self.open_images(images)
        query = self.embed([image])
        rows, indices = bulk.embed_records(self, records, progress=progress)
        distances = np.sum(np.square(rows - query), axis=1)
        # One more, as the query itself may be among them.
        order = np.argsort(distances, kind="stable")[: None if k is None else k + 1]
        return create_search_result(
            image,
            paths_of(records, indices[order]),
            labels_of(records, indices[order]),
            distances[order],
            self.cluster_distance,
            k=k,
            include_query=include_query,
            is_unfamiliar=self.is_unfamiliar(query[0]),
        )

    def duplicates(
        self,
        images: ImageSource,
        *,
        max_distance: float | None = None,
        progress: Progress | None = None,
    ) -> ImageGroups:
        """Finds copies among images, as groups of two or more.

        The first image of a group is the one to keep: that with the most pixels, of
        these the largest file.

        Args:
          images: Collection of images, see `Model`.
          max_distance: Largest squared distance of two copies' embeddings; None for the
            distances by embedding and by pixels within which 99 % of smaller,
            compressed copies of validation images lie, and a comparison of details.
          progress: Function that receives the progress; None for a bar on a terminal.

        Raises:
          DataError: There is no such collection, or none of its images can be read.
        """
        _check_distance(max_distance)
        records = self.open_images(images)
        return copies.find_copies(
            self,
            records,
            self.artifact.info["copies"],
            max_distance=max_distance,
            progress=progress,
        )

    def clusters(
        self,
        images: ImageSource,
        *,
        max_distance: float | None = None,
        num: int | None = None,
        progress: Progress | None = None,
    ) -> ImageGroups:
        """Groups images by similarity; every image is in one group.

        Args:
          images: Collection of images, see `Model`.
          max_distance: Largest mean squared distance within a group; None for
            `cluster_distance`.
          num: Number of groups, in place of a distance.
          progress: Function that receives the progress; None for a bar on a terminal.

        Raises:
          DataError: Neither a distance nor a number is known, or there is no such
            collection, or none of its images can be read.
        """
        _check_distance(max_distance)
        if num is None and max_distance is None:
            max_distance = self.cluster_distance
            if max_distance is None:
                raise errors.DataError(
                    f"{self.artifact.path} has no distance for clusters: give "
                    "max_distance or num, the number of clusters."
                )
        records = self.open_images(images)
        rows, indices = bulk.embed_records(self, records, progress=progress)
        groups = grouping.find_clusters(rows, max_distance=max_distance, num=num)
        members = [indices[group] for group in groups]
        return create_groups(records, members, len(indices), max_distance)

    def label_errors(
        self, images: ImageSource, *, progress: Progress | None = None
    ) -> LabelErrors:
        """Ranks images that are nearer to another label than to their own.

        Args:
          images: Collection of images with labels, see `Model`.
          progress: Function that receives the progress; None for a bar on a terminal.

        Raises:
          DataError: There is no such collection, none of its images can be read, or
            they have fewer than two labels.
        """
        records = self.open_images(images)
        return label_errors.find_label_errors(self, records, progress=progress)

    def open_images(
        self, images: ImageSource, *, data_dir: str = "data", label_feature: str = ""
    ) -> Records:
        """Returns the records of a collection, see `Model`.

        Args:
          images: Collection of images.
          data_dir: Folder of TFDS datasets.
          label_feature: Feature with the labels of a TFDS dataset that the model was
            not trained on.

        Raises:
          DataError: There is no such collection, or it has no image.
        """
        return sources.open_source(
            images,
            data_dir=data_dir,
            like=self.data_config,
            label_feature=label_feature,
        )


def _check_distance(max_distance: float | None) -> None:
    if max_distance is not None and not max_distance >= 0:
        raise errors.DataError(
            f"max_distance={max_distance} must be at least 0; None takes the model's."
        )
