"""Labels between which another label lies, by the mean directions of their images."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from deeprank_jax import errors, registry
from deeprank_jax.data.records import Records
from deeprank_jax.inference import bulk
from deeprank_jax.progress import Progress
from deeprank_jax.search import between as between_lib
from deeprank_jax.search.between import Arc


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelPlace:
    """Place of a label among the others.

    Attributes:
      label: Name of the label.
      names: Names of all labels, by the numbers in `arcs`.
      arcs: Pairs of labels between which it lies, the nearest arc first; none if it
        lies between no two.
      nearest: Name of the nearest other label.
      nearest_cosine: Cosine of the directions of both.
      embeddings: `[N, D]` float32, unit vectors of the images.
      labels: `[N]` ints, number of the label of each image.
      directions: `[C, D]` float64, direction of the mean of each label.
      indices: `[N]` ints, the images' indices in the records.
    """

    label: str
    names: tuple[str, ...]
    arcs: tuple[Arc, ...]
    nearest: str
    nearest_cosine: float
    embeddings: np.ndarray
    labels: np.ndarray
    directions: np.ndarray
    indices: np.ndarray

    @property
    def number(self) -> int:
        """Number of the label."""
        return self.names.index(self.label)


def place_label(
    model: bulk.Embedder,
    records: Records,
    label: str,
    *,
    ends: Sequence[str] = (),
    num: int = 5,
    progress: Progress | None = None,
) -> LabelPlace:
    """Finds the pairs of labels between which a label lies.

    Args:
      model: Model that embeds.
      records: Images with labels.
      label: Name of the label to place.
      ends: Names of two labels, if only the arc between them counts.
      num: Largest number of pairs.
      progress: Function that receives the progress; None for a bar.

    Raises:
      DataError: A label does not exist or has no readable image, there are fewer than
        three, or the mean of a label has no direction.
    """
    present = {records.label_name(i) for i in range(len(records))} - {""}
    _check_labels(records.name, present, label, ends)
    rows, indices = bulk.embed_records(model, records, progress=progress)
    names = np.array([records.label_name(int(i)) for i in indices])
    rows, indices, names = (x[names != ""] for x in (rows, indices, names))
    label_names, numbers = np.unique(names, return_inverse=True)
    label_names = tuple(map(str, label_names))
    _check_labels(records.name, {*label_names}, label, ends)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(lengths > 0, lengths, 1)
    try:
        directions = between_lib.class_directions(rows, numbers)
    except ValueError as error:
        raise errors.DataError(
            f"{records.name}: {error} Leave out labels whose images are unlike."
        ) from error
    number = label_names.index(label)
    if ends:
        first, second = map(label_names.index, ends)
        arc = between_lib.place_on_arc(directions, number, (first, second))
        arcs = [] if arc is None else [arc]
    else:
        arcs = between_lib.find_arcs(directions, number, num)
    cosines = np.delete(directions @ directions[number], number)
    others = [*label_names[:number], *label_names[number + 1 :]]
    return LabelPlace(
        label=label,
        names=label_names,
        arcs=tuple(arcs),
        nearest=others[int(cosines.argmax())],
        nearest_cosine=float(cosines.max()),
        embeddings=rows,
        labels=numbers,
        directions=directions,
        indices=indices,
    )


def _check_labels(
    name: str, present: set[str], label: str, ends: Sequence[str]
) -> None:
    """Checks that the labels exist, and are different.

    Raises:
      DataError: They do not, or are not.
    """
    for name_of_label in (label, *ends):
        if name_of_label not in present:
            hint = registry.did_you_mean(name_of_label, iter(sorted(present)))
            raise errors.DataError(
                f"{name}: no readable image has the label {name_of_label!r}{hint}; its "
                f"{len(present)} labels are {registry.list_names(sorted(present))}."
            )
    if len({label, *ends}) < 1 + len(ends):
        raise errors.DataError(
            f"{name}: {label} and the two labels of --ends must be different ones."
        )
    if len(present) < 3:
        raise errors.DataError(
            f"{name}: its images have {len(present)} labels, and one lies between two "
            "others: give images of three labels or more."
        )
