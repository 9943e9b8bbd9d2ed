"""Probable label errors: images that lie nearer to another label than to their own."""

from collections.abc import Iterator
import dataclasses

import numpy as np

from deeprank_jax import errors
from deeprank_jax.data.records import Records
from deeprank_jax.inference import bulk
from deeprank_jax.progress import Progress
from deeprank_jax.search.label_margins import LabelMargins, label_margins


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelError:
    """An image whose label is probably wrong.

    Attributes:
      path: Path of the image.
      label: Label of the image.
      nearest_label: Label of the nearest image with another label.
      margin: Cosine of that image less that of the nearest with the same label; above
        0.
      nearest_path: Path of the nearest image with another label.
      same_path: Path of the nearest image with the same label.
    """

    path: str
    label: str
    nearest_label: str
    margin: float
    nearest_path: str
    same_path: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelErrors:
    """Probable label errors of a collection, the surest first; iterates over them.

    Attributes:
      images: Images that are nearer to another label than to their own.
      num_compared: Number of images that were compared.
      num_unlabelled: Number of images without a label, which are left out.
      num_alone: Number of images that are the only one of their label, of which nothing
        can be said.
    """

    images: tuple[LabelError, ...]
    num_compared: int
    num_unlabelled: int
    num_alone: int

    def __len__(self) -> int:
        """Returns the number of probable errors."""
        return len(self.images)

    def __iter__(self) -> Iterator[LabelError]:
        """Yields the probable errors."""
        return iter(self.images)

    def __getitem__(self, index: int) -> LabelError:
        """Returns a probable error by its rank from 0."""
        return self.images[index]


def find_label_errors(
    model: bulk.Embedder, records: Records, *, progress: Progress | None = None
) -> LabelErrors:
    """Ranks the images that lie nearer to another label than to their own.

    The margin of an image is the cosine of the nearest image with another label less
    that of the nearest with its own (Müller & Markert, "Identifying mislabeled
    instances in classification datasets", 2019, rank by a classifier's confidence in
    the label; here the neighbours take its place).

    Args:
      model: Model that embeds.
      records: Images, with the labels to check.
      progress: Function that receives the progress; None for a bar.

    Raises:
      DataError: No image can be read, or fewer than two labels have images.
    """
    names = np.array([records.label_name(i) for i in range(len(records))])
    if len({*names} - {""}) < 2:
        raise _too_few_labels(records, names)
    rows, indices = bulk.embed_records(model, records, progress=progress)
    is_labelled = names[indices] != ""
    rows, indices = rows[is_labelled], indices[is_labelled]
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(lengths > 0, lengths, 1)
    labels = np.unique(names[indices], return_inverse=True)[1]
    if not len(labels) or labels.max() < 1:
        raise _too_few_labels(records, names[indices])
    margins = label_margins(rows, labels)
    order = np.argsort(-margins.margins, kind="stable")
    order = order[margins.margins[order] > 0]
    return LabelErrors(
        images=tuple(_describe(records, indices, margins, i) for i in order),
        num_compared=len(indices),
        num_unlabelled=int(np.sum(~is_labelled)),
        num_alone=int(np.sum(margins.same < 0)),
    )


def _describe(
    records: Records, indices: np.ndarray, margins: LabelMargins, row: int
) -> LabelError:
    """Returns the probable error of an embedding's row."""
    image, nearest, same = (
        int(indices[i]) for i in (row, margins.other[row], margins.same[row])
    )
    return LabelError(
        path=records.describe(image),
        label=records.label_name(image),
        nearest_label=records.label_name(nearest),
        margin=float(margins.margins[row]),
        nearest_path=records.describe(nearest),
        same_path=records.describe(same),
    )


def _too_few_labels(records: Records, names: np.ndarray) -> errors.DataError:
    """Returns the error for images that have no two labels."""
    num = len({*names.tolist()} - {""})
    return errors.DataError(
        f"{records.name}: its images have {num} label{'' if num == 1 else 's'}, and a "
        "wrong one shows beside another: give a folder with a folder for each label, "
        "or a .csv list with the columns path and label."
    )
