"""Which rows of the table are made of others? Golden feature, hashes, OASIS, joins.

Convention: rows are the records of all splits in turn; what is learned is learned from
the split "train", and what is chosen is chosen on triplets of "validation".
"""

from collections.abc import Mapping, Sequence

import numpy as np

from deeprank_jax.baselines.minhash import fit_l1_hash_kpca
from deeprank_jax.baselines.oasis import Oasis, choose_oasis
from deeprank_jax.baselines.systems import System, unit_rows
from deeprank_jax.relevance.golden.feature_bank import create_bank
from deeprank_jax.relevance.golden.learning import GoldenFeature, learn_golden_feature

# Of the hashes; of few training records half as many as these.
_HASH_DIM = 256
# How much of the squared distance is the first system's.
_SHARES = tuple(np.linspace(0.1, 0.9, 9))


def golden_feature(
    described: Mapping[str, System],
    rated: np.ndarray,
    train: slice,
    *,
    seed: int = 0,
) -> tuple[System, GoldenFeature]:
    """Learns how much each descriptor matters from rated triplets.

    Args:
      described: the descriptors, by name.
      rated: `[T, 3]` ints, rows: anchor, positive, negative; those of other splits
        only judge.
      train: the rows of the training split.
      seed: as of `learn_golden_feature`.

    Returns:
      The row of the table, and what was learned.

    Raises:
      ValueError: as `create_bank` and `learn_golden_feature`.
    """
    ok = np.logical_and.reduce([system.ok for system in described.values()])
    is_train = np.zeros(len(ok), bool)
    is_train[train] = True
    features = {name: system.embeddings for name, system in described.items()}
    bank = create_bank(features, np.flatnonzero(is_train & ok), ok, seed=seed)
    learned = learn_golden_feature(bank, rated, is_train, seed=seed)
    return System(embeddings=learned.values, ok=ok), learned


def l1_hash_kpca(
    features: System, train: slice, *, seed: int = 0, workers: int = 1
) -> System:
    """Hashes features, and embeds the hashes: see `fit_l1_hash_kpca`.

    Args:
      features: what is hashed.
      train: the rows of the training split.
      seed: of the hashes.
      workers: threads that share the rows.

    Raises:
      ValueError: as `fit_l1_hash_kpca`.
    """
    learned_from = features.embeddings[train][features.ok[train]]
    dim = min(_HASH_DIM, len(learned_from) // 2)
    embed = fit_l1_hash_kpca(learned_from, dim=dim, seed=seed, workers=workers)
    return System(
        embeddings=embed(features.embeddings, workers=workers), ok=features.ok
    )


def oasis(
    features: System, triplets: Sequence[np.ndarray], judged: np.ndarray, train: slice
) -> tuple[System, Oasis]:
    """Learns a bilinear similarity of features.

    Args:
      features: centred on the training split here, and made unit vectors.
      triplets: batches `[B, 3]` of rows of the training split to learn from.
      judged: `[T, 3]` rows of validation, by which C is chosen.
      train: the rows of the training split.

    Raises:
      ValueError: as `choose_oasis`.
    """
    middle = features.embeddings[train][features.ok[train]].mean(axis=0)
    centred = unit_rows(features.embeddings - middle)
    centred[~features.ok] = 0.0
    usable = [batch[features.ok[batch].all(axis=1)] for batch in triplets]
    learned, _ = choose_oasis(centred, usable, judged[features.ok[judged].all(axis=1)])
    queries, gallery = learned.as_embeddings(centred)
    return System(embeddings=gallery, ok=features.ok, queries=queries), learned


def join(one: System, other: System, judged: np.ndarray) -> System:
    """Puts two systems side by side, with the weights that suit validation best.

    Both are made unit vectors, so that the squared distance is a weighted mean of
    theirs.

    Args:
      one: of the first columns.
      other: of the others.
      judged: `[T, 3]` rows of validation: of equal shares, the first that orders most.

    Raises:
      ValueError: there is no triplet whose records could all be read.
    """
    ok = one.ok & other.ok
    judged = judged[ok[judged].all(axis=1)]
    if not len(judged):
        raise ValueError("There are no validation triplets to choose by: give some.")
    a, b = unit_rows(one.embeddings), unit_rows(other.embeddings)

    def gaps(x: np.ndarray) -> np.ndarray:
        anchor, positive, negative = (x[rows].astype(np.float64) for rows in judged.T)
        near = np.square(anchor - positive).sum(axis=1)
        return np.square(anchor - negative).sum(axis=1) - near

    first, second = gaps(a), gaps(b)
    ordered = [np.mean(s * first + (1 - s) * second > 0) for s in _SHARES]
    share = _SHARES[int(np.argmax(ordered))]
    columns = [np.float32(np.sqrt(share)) * a, np.float32(np.sqrt(1 - share)) * b]
    return System(embeddings=np.concatenate(columns, axis=1), ok=ok)
