"""Exactness of the draws: tests of equations (6) to (8)."""

import numpy as np
import tqdm

from deeprank_jax.relevance import Hierarchy
from deeprank_jax.sampling import (
    TripletSampler,
    categories,
    count_candidates,
    counter_rng,
)
from deeprank_jax.sampling.reservoir.buffers import Buffers, KeyedRecords
from tools.benchmark.exact_laws import chi_square, enumerate_laws

_DRAWS = 10**6
_NUM_RESERVOIRS, _CHUNK, _SIZE, _CAPACITY = 200_000, 4_000, 140, 20
_SEED = 1


class Pairs:
    """Relevance by a table of all pairs; the last attribute is the record's index."""

    def __init__(self, table: np.ndarray):
        self.table = table

    def attributes(self, splits):
        """Returns nothing; a `Relevance` must have it."""
        return []

    def pairwise(self, a, b):
        """Returns `[...]` of `[..., A]` and `[..., A]`."""
        return self.table[a[..., -1], b[..., -1]]


def min_p_value() -> float:
    """Returns the least p-value of a million draws from whole categories.

    Of anchors, of positives with their anchors, and of both kinds of negatives with
    their anchors and positives; by a hierarchy and by a table of pairs, which have
    different implementations, and in both modes.
    """
    rng = np.random.default_rng(0)
    fine = rng.integers(0, 12, 30)
    labels = np.stack([fine // 6, fine // 2, fine], axis=1)
    numbers = np.stack([fine // 6, np.arange(30)], axis=1)
    table = rng.lognormal(size=(30, 30))
    cases = [
        (labels, Hierarchy((0.1, 0.4, 1.0)), 0.7),
        (numbers, Pairs(np.sqrt(table * table.T)), 1.5),
    ]
    values = []
    for attributes, kind, cap in cases:
        category = categories(attributes, 0)
        block = kind.pairwise(attributes[:, None], attributes[None])
        same = (category[:, None] == category) & ~np.eye(30, dtype=bool)
        candidates = count_candidates(attributes, category, (block * same).sum(axis=1))
        for mode in ("importance", "uniform"):
            triplets = TripletSampler(
                candidates,
                kind,
                seed=1,
                positive_cap=cap,
                min_relevance_gap=0.2,
                out_of_class=0.3,
                mode=mode,
            ).sample(0, _DRAWS)
            positives, inside, outside = enumerate_laws(
                attributes,
                category,
                kind,
                cap=cap,
                gap=0.2,
                out_of_class=0.3,
                mode=mode,
            )
            indices, where = triplets.indices, triplets.in_class
            values += [
                chi_square(indices[:, :1], positives.sum(axis=1)),
                chi_square(indices[:, :2], positives),
                chi_square(indices[where], inside),
                chi_square(indices[~where], outside),
            ]
    return min(values)


def small_buffers() -> dict[str, float]:
    """Returns the error of the laws of 200,000 reservoirs of 20 records out of 140.

    The corrected figure is the larger of the total-variation distances of the anchor's
    law from eq. (6), and of the positive's law given the anchor from eq. (7), the mean
    over anchors by their law; the uncorrected one is the anchor's, drawn uniformly
    from the buffer.
    """
    totals = np.random.default_rng(_SEED).lognormal(size=_SIZE)
    table = _pairs_with_totals(totals)
    law = totals / totals.sum()
    joint, naive = np.zeros((_SIZE, _SIZE)), np.zeros(_SIZE)
    for first in tqdm.trange(
        0, _NUM_RESERVOIRS, _CHUNK, desc="reservoirs", leave=False
    ):
        record, lift = _reservoirs(totals, first)
        anchor = totals[record] * lift
        anchor /= anchor.sum(axis=1, keepdims=True)
        weight = table[record[:, :, None], record[:, None]] * lift[:, None]
        weight *= anchor[:, :, None] / weight.sum(axis=2, keepdims=True)
        cell = record[:, :, None] * _SIZE + record[:, None]
        joint += np.bincount(cell.ravel(), weight.ravel(), minlength=_SIZE**2).reshape(
            _SIZE, _SIZE
        )
        naive += np.bincount(record.ravel(), minlength=_SIZE)
    anchors = joint.sum(axis=1)
    error = joint / anchors[:, None] - table / totals[:, None]
    corrected = _distance(anchors / anchors.sum(), law)
    of_positive = float(law @ (0.5 * np.abs(error).sum(axis=1)))
    return {
        "small_buffer_tv_corrected": max(corrected, of_positive),
        "small_buffer_tv_uncorrected": _distance(naive / naive.sum(), law),
    }


def _reservoirs(totals: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns `[R, 20]` records and one over the probabilities of their presence."""
    index = np.arange(_CHUNK * _SIZE)
    rate = np.tile(totals, _CHUNK)
    exponential = counter_rng.exponentials(_SEED, first, index)
    buffers = Buffers(np.full(_CHUNK, _SIZE), _CAPACITY)
    buffers.ingest(
        KeyedRecords(
            index=index,
            label=index // _SIZE,
            key=exponential / rate,
            rate=rate,
            position=index,
        )
    )
    content = buffers.content()
    shape = (_CHUNK, _CAPACITY)
    return content.index.reshape(shape) % _SIZE, 1 / content.inclusion.reshape(shape)


def _pairs_with_totals(totals: np.ndarray) -> np.ndarray:
    """Returns random relevances `[N, N]`, symmetric, whose rows sum to `totals`."""
    noise = np.random.default_rng(_SEED + 1).lognormal(size=(len(totals),) * 2)
    table = np.sqrt(noise * noise.T)
    np.fill_diagonal(table, 0.0)
    scale = np.ones(len(totals))
    for _ in range(10_000):
        scale = np.sqrt(scale * totals / (table @ scale))
    return scale[:, None] * table * scale


def _distance(p: np.ndarray, q: np.ndarray) -> float:
    return 0.5 * float(np.abs(p - q).sum())
