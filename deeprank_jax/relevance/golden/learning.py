"""Training of the golden feature from rated triplets, and its evaluation.

Convention: weights are learned from triplets of training records only, and evaluated on
triplets of other anchors.
"""

import dataclasses

import numpy as np

from deeprank_jax.errors import DataError
from deeprank_jax.relevance.golden import max_margin
from deeprank_jax.relevance.golden.feature_bank import FeatureBank, pair_distances

_HELD_OUT = 0.2

# Result of `max_margin.agreement`.
Agreement = dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GoldenFeature:
    """A weighted combination of features, learned from people's ratings.

    Attributes:
      values: `[N, D]` float32, one row per record; the squared distance of two rows is
        the weighted sum of the features' distances.
      weights: Weight by feature.
      dims: Number of dimensions after reduction, by feature.
      explained: Share of the variance that remains after reduction, by feature.
      scale: Median squared distance from anchor to positive in the training triplets;
        `exp(-distance / scale)` is above .37 for half of these pairs.
      penalty: Lambda of the training, selected by cross-validation.
      counts: Numbers of triplets and anchors for training and evaluation, and of
        triplets in neither.
      agreement: Agreement on the evaluation triplets, by feature and for
        `"equal weights"`, `"learned weights"` and `"learned - equal"`.
    """

    values: np.ndarray
    weights: dict[str, float]
    dims: dict[str, int]
    explained: dict[str, float]
    scale: float
    penalty: float
    counts: dict[str, int]
    agreement: dict[str, Agreement]

    def metadata(self) -> dict[str, object]:
        """Returns all fields but the values, which JSON can represent."""
        fields = dataclasses.fields(self)
        return {f.name: getattr(self, f.name) for f in fields if f.name != "values"}


def learn_golden_feature(
    bank: FeatureBank, triplets: np.ndarray, is_train: np.ndarray, *, seed: int = 0
) -> GoldenFeature:
    """Learns the weights and evaluates them against equal weights.

    Triplets with an unreadable image are left out, and those that `split_triplets`
    leaves out.

    Args:
      bank: Features of all records.
      triplets: `[T, 3]` int, rows of anchor, positive and negative in the bank.
      is_train: `[N]` bool, True for the training split.
      seed: Seed of the folds, the held-out anchors and the bootstrap.

    Raises:
      DataError: Too few triplets are of training records, no feature agrees with
        them, or most of their positives are copies of the anchor.
    """
    rng = np.random.default_rng(seed)
    usable = triplets[bank.where[triplets].all(axis=1)]
    train, test = split_triplets(usable, is_train, rng)
    gaps = bank.gaps(train)
    penalty = max_margin.choose_penalty(gaps, train[:, 0], rng=rng)
    weights = max_margin.learn_weights(gaps, penalty)
    values = bank.join(weights)
    scale = float(np.median(pair_distances(values, train[:, :2])))
    if not scale:
        raise DataError(
            "The median distance from anchor to positive is 0: most of the "
            f"{len(train):,} training triplets pair an image with a copy of it. "
            "Rate images that differ."
        )
    return GoldenFeature(
        values=values,
        weights=dict(zip(bank.values, weights.tolist(), strict=True)),
        dims={name: x.shape[1] for name, x in bank.values.items()},
        explained=bank.explained,
        scale=scale,
        penalty=penalty,
        counts={
            "triplets_train": len(train),
            "anchors_train": len(np.unique(train[:, 0])),
            "triplets_test": len(test),
            "anchors_test": len(np.unique(test[:, 0])),
            "triplets_left_out": len(triplets) - len(train) - len(test),
        },
        agreement=_agreements(bank, test, weights, rng),
    )


def split_triplets(
    triplets: np.ndarray, is_train: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the triplets for training and those for evaluation.

    Training triplets have training records only. In evaluation triplets the anchor is
    not a training record; if there are none, a fifth of the training anchors is held
    out. Triplets of a training anchor with other records are in neither.

    Args:
      triplets: `[T, 3]` int, rows of anchor, positive and negative.
      is_train: `[N]` bool, True for the training split.
      rng: Generator that selects the held-out anchors.

    Raises:
      DataError: There are too few triplets of training records.
    """
    train = triplets[is_train[triplets].all(axis=1)]
    test = triplets[~is_train[triplets[:, 0]]]
    anchors = np.unique(train[:, 0])
    needed = 2 if len(test) else 3
    if len(anchors) < needed:
        raise DataError(
            f"Of {len(triplets):,} triplets, {len(train):,} are of training records "
            f"only, with {len(anchors)} anchors; at least {needed} anchors are needed, "
            "and a few hundred to be of use. Rate more images of the training split."
        )
    if not len(test):
        num_held_out = max(1, round(_HELD_OUT * len(anchors)))
        held_out = rng.choice(anchors, num_held_out, replace=False)
        # Cross-validation needs at least two anchors.
        where = np.isin(train[:, 0], held_out[: len(anchors) - 2])
        train, test = train[~where], train[where]
    return train, test


def format_table(golden: GoldenFeature) -> str:
    """Returns a text table of weights and agreement, one line per feature."""
    width = max(map(len, golden.agreement))
    lines = [f"{'':{width}}  weight  dims  variance  agreement  95 % interval"]
    for name, interval in golden.agreement.items():
        columns = f"{'':22}"
        if name in golden.weights:
            columns = (
                f"{golden.weights[name]:6.3f}  {golden.dims[name]:4}  "
                f"{golden.explained[name]:8.1%}"
            )
        lines.append(
            f"{name:{width}}  {columns}  {interval['agreement']:9.3f}  "
            f"{interval['low']:.3f} to {interval['high']:.3f}"
        )
    counts = golden.counts
    lines.append(
        f"Trained on {counts['triplets_train']:,} triplets of "
        f"{counts['anchors_train']:,} anchors, evaluated on "
        f"{counts['triplets_test']:,} of {counts['anchors_test']:,} other anchors; "
        f"{counts['triplets_left_out']:,} left out. lambda {golden.penalty:g}, scale "
        f"{golden.scale:.4g}."
    )
    return "\n".join(lines)


def _agreements(
    bank: FeatureBank,
    triplets: np.ndarray,
    weights: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, Agreement]:
    gaps = bank.gaps(triplets)
    samples = max_margin.bootstrap_weights(triplets[:, 0], rng)
    equal, weighted = gaps.sum(axis=1), gaps @ weights
    agreements = {
        name: max_margin.agreement(column, samples)
        for name, column in zip(bank.values, gaps.T, strict=True)
    }
    agreements["equal weights"] = max_margin.agreement(equal, samples)
    agreements["learned weights"] = max_margin.agreement(weighted, samples)
    agreements["learned - equal"] = max_margin.difference(weighted, equal, samples)
    return agreements
