"""Baselines computed from other systems: golden feature, hashes, OASIS, joins.

Rows are the records of all splits in turn. Parameters are learned from the split
"train", and settings are chosen on triplets of "validation".
"""

from collections.abc import Mapping, Sequence

import numpy as np

from deeprank_jax.baselines.minhash import fit_l1_hash_kpca
from deeprank_jax.baselines.oasis import Oasis, choose_oasis
from deeprank_jax.baselines.systems import System, unit_rows
from deeprank_jax.errors import DataError
from deeprank_jax.relevance.golden.feature_bank import create_bank
from deeprank_jax.relevance.golden.learning import GoldenFeature, learn_golden_feature

# Dimension of embedded hashes; at most half the number of training records.
_HASH_DIM = 256
# Weights of the first system's squared distance.
_SHARES = tuple(np.linspace(0.1, 0.9, 9))


def golden_feature(
    described: Mapping[str, System],
    rated: np.ndarray,
    train: slice,
    *,
    seed: int = 0,
) -> tuple[System, GoldenFeature]:
    """Learns the weight of each descriptor from rated triplets.

    Args:
      described: Systems of the descriptors, by name.
      rated: `[T, 3]` int, rows of anchor, positive, negative; those of other splits are
        only evaluated.
      train: Rows of the training split.
      seed: Seed of `learn_golden_feature`.

    Returns:
      The system, and the golden feature.

    Raises:
      ValueError: See `create_bank` and `learn_golden_feature`.
    """
    ok = np.logical_and.reduce([system.ok for system in described.values()])
    is_train = np.zeros(len(ok), bool)
    is_train[train] = True
    features = {name: system.embeddings for name, system in described.items()}
    bank = create_bank(features, np.flatnonzero(is_train & ok), ok, seed=seed)
    golden = learn_golden_feature(bank, rated, is_train, seed=seed)
    return System(embeddings=golden.values, ok=ok), golden


def l1_hash_kpca(
    features: System, train: slice, *, seed: int = 0, workers: int = 1
) -> System:
    """Hashes features, and embeds the hashes: see `fit_l1_hash_kpca`.

    Args:
      features: Features to hash.
      train: Rows of the training split.
      seed: Seed of the hashes.
      workers: Number of threads that share the rows.

    Raises:
      ValueError: See `fit_l1_hash_kpca`.
    """
    train_rows = features.embeddings[train][features.ok[train]]
    dim = min(_HASH_DIM, len(train_rows) // 2)
    embed = fit_l1_hash_kpca(train_rows, dim=dim, seed=seed, workers=workers)
    return System(
        embeddings=embed(features.embeddings, workers=workers), ok=features.ok
    )


def oasis(
    features: System, triplets: Sequence[np.ndarray], judged: np.ndarray, train: slice
) -> tuple[System, Oasis]:
    """Learns a bilinear similarity of features.

    Args:
      features: Features, which are centred on the training split and normalised here.
      triplets: Batches `[B, 3]` of rows of the training split.
      judged: `[T, 3]` rows of validation, by which C is chosen.
      train: Rows of the training split.

    Raises:
      ValueError: See `choose_oasis`.
    """
    middle = features.embeddings[train][features.ok[train]].mean(axis=0)
    centred = unit_rows(features.embeddings - middle)
    centred[~features.ok] = 0.0
    usable = [batch[features.ok[batch].all(axis=1)] for batch in triplets]
    best, _ = choose_oasis(centred, usable, judged[features.ok[judged].all(axis=1)])
    queries, gallery = best.as_embeddings(centred)
    return System(embeddings=gallery, ok=features.ok, queries=queries), best


def join(one: System, other: System, judged: np.ndarray) -> System:
    """Concatenates two systems, with the weights that are best on validation.

    Both are normalised to unit vectors, so that the squared distance is a weighted mean
    of theirs.

    Args:
      one: System of the first columns.
      other: System of the other columns.
      judged: `[T, 3]` rows of validation. Among equally good weights the first is used.

    Raises:
      DataError: There is no triplet whose records could all be read.
    """
    ok = one.ok & other.ok
    triplets = judged[ok[judged].all(axis=1)]
    if not len(triplets):
        raise DataError(
            "There are no validation triplets to choose by: give a dataset whose "
            "validation split has at least two images of a class."
        )
    a, b = unit_rows(one.embeddings), unit_rows(other.embeddings)

    def gaps(x: np.ndarray) -> np.ndarray:
        anchor, positive, negative = (x[rows].astype(np.float64) for rows in triplets.T)
        near = np.square(anchor - positive).sum(axis=1)
        return np.square(anchor - negative).sum(axis=1) - near

    first, second = gaps(a), gaps(b)
    ordered = [np.mean(s * first + (1 - s) * second > 0) for s in _SHARES]
    share = _SHARES[int(np.argmax(ordered))]
    columns = [np.float32(np.sqrt(share)) * a, np.float32(np.sqrt(1 - share)) * b]
    return System(embeddings=np.concatenate(columns, axis=1), ok=ok)
