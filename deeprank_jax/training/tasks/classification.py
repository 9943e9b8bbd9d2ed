"""The first of the paper's two stages: the trunk learns to tell classes.

Some images of the training split are held out and asked about, since the classes of
the other splits may be others. What the trunk then says of any image is an embedding
like that of a ranking network, and measured in the same way.
"""

from collections.abc import Callable, Iterator
import dataclasses

import jax.numpy as jnp
import ml_collections
import numpy as np
import tqdm

from deeprank_jax.data.reader import ImageReader
from deeprank_jax.data.records import Records
from deeprank_jax.distributed import processes
from deeprank_jax.losses import cross_entropy
from deeprank_jax.losses.cross_entropy import TOP, is_in_top
from deeprank_jax.sampling.labelled_sampler import hold_out
from deeprank_jax.training import step as step_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classes:
    """The classes of a training split, and which of its images are asked about.

    Attributes:
      names: of the classes, by their numbers.
      labels: `[N]` int32, the class of each record, from 0.
      learned: `[T]` indices of the records to learn from.
      held_out: `[M]` indices of the others.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    learned: np.ndarray
    held_out: np.ndarray


def create_classes(config: ml_collections.ConfigDict, records: Records) -> Classes:
    """Returns the classes that a config asks for.

    Args:
      config: the whole configuration.
      records: of the training split.

    Raises:
      ValueError: there is no such level, fewer than two classes, or nothing to hold
        out.
    """
    level, names = config.classification.level, records.level_names
    if not -len(names) <= level < len(names):
        raise ValueError(
            f"config.classification.level={level} is none of the records' {len(names)} "
            f"levels ({', '.join(names)}): choose one from {-len(names)} to "
            f"{len(names) - 1}."
        )
    found, labels = np.unique(records.labels[:, level], return_inverse=True)
    if len(found) < 2:
        raise ValueError(
            f"{records.name} holds {len(found)} class at the level {names[level]}, and "
            "telling classes takes two: choose another config.classification.level."
        )
    learned, held_out = hold_out(
        len(records), config.classification.held_out, config.seed
    )
    return Classes(
        names=tuple(str(label) for label in found),
        labels=labels.reshape(-1).astype(np.int32),
        learned=learned,
        held_out=held_out,
    )


def measure(
    classes: Classes,
    reader: ImageReader,
    logits_fn: Callable[[np.ndarray], np.ndarray],
    batch_size: int,
    *,
    check: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Returns how often the right class is the first, or among the first five.

    Each process asks about its share of the images, and all get the whole.

    Args:
      classes: what to ask about.
      reader: of the training split.
      logits_fn: maps uint8 images `[B, H, W, 3]` to logits `[B, num_classes]`.
      batch_size: at least 1.
      check: is called for each batch, and may raise to end it early.

    Returns:
      `top1` and `top5`, shares of the images that could be read; NaN without any.
    """
    held_out = classes.held_out
    right = np.zeros((len(held_out), len(TOP)), bool)
    readable = np.zeros(len(held_out), bool)
    for rows in _batches(*processes.own_share(len(held_out)), batch_size):
        check()
        images, readable[rows] = reader.load(held_out[rows])
        # Padded, so that the last batch needs no program of its own.
        padding = ((0, batch_size - len(images)), *((0, 0),) * 3)
        logits = jnp.asarray(logits_fn(np.pad(images, padding))[: len(images)])
        labels = jnp.asarray(classes.labels[held_out[rows]])
        for column, k in enumerate(TOP):
            right[rows, column] = is_in_top(logits, labels, k)
    right, readable = map(processes.gather_shares, (right, readable))
    shares = right[readable].mean(axis=0) if readable.any() else [np.nan] * len(TOP)
    return {f"top{k}": float(share) for k, share in zip(TOP, shares, strict=True)}


def _batches(start: int, stop: int, batch_size: int) -> Iterator[slice]:
    """Yields the rows of each batch, and shows how far it is."""
    bar = {"desc": "held out", "unit": "batch", "leave": False}
    starts = range(start, stop, batch_size)
    for first in tqdm.tqdm(starts, **bar, disable=not processes.is_first()):
        yield slice(first, min(first + batch_size, stop))


def make_classification(label_smoothing: float) -> step_lib.Objective:
    """Returns the objective of single images; the batch holds `labels [B, 1]`.

    Args:
      label_smoothing: in [0, 1), the share of the target spread over all classes.
    """

    def objective(outputs, batch, *, step, key):
        del step, key
        logits, labels = outputs[:, 0], batch["labels"][:, 0]
        image_losses = cross_entropy.softmax_cross_entropy(
            logits, labels, label_smoothing=label_smoothing
        )
        metrics = {
            f"top{k}": jnp.mean(cross_entropy.is_in_top(logits, labels, k))
            for k in cross_entropy.TOP
        }
        return image_losses, metrics

    return objective
