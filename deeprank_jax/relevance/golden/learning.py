"""How is the golden feature made from features and rated triplets, and how good is it?

Convention: weights are learned from triplets of training records only, and judged on
triplets of anchors that none of those has.
"""

import dataclasses
from typing import Any

import numpy as np

from deeprank_jax.relevance.golden import max_margin
from deeprank_jax.relevance.golden.feature_bank import FeatureBank, pair_distances

_HELD_OUT = 0.2

# What `max_margin.agreement` returns.
Agreement = dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GoldenFeature:
    """A weighted combination of features, learned from people's ratings.

    Attributes:
      values: `[N, D]` float32; the squared distance of two rows is the weighted sum of
        the features' distances.
      weights: by feature.
      dims: by feature, what is left of it after reduction.
      explained: by feature, the share of variance that is left.
      scale: the median squared distance between the anchor and the positive of the
        triplets that the weights were learned from; `exp(-distance / scale)` is then
        above .37 for half of what people called similar.
      penalty: lambda of the learning, as cross-validation chose it.
      counts: triplets and anchors: learned from, judged on, left out.
      agreement: on the triplets judged on: of each feature, `"equal weights"`,
        `"learned weights"` and `"learned - equal"`.
    """

    values: np.ndarray
    weights: dict[str, float]
    dims: dict[str, int]
    explained: dict[str, float]
    scale: float
    penalty: float
    counts: dict[str, int]
    agreement: dict[str, Agreement]

    def metadata(self) -> dict[str, Any]:
        """Returns all but the values, as JSON can hold it."""
        fields = dataclasses.fields(self)
        return {f.name: getattr(self, f.name) for f in fields if f.name != "values"}


def learn_golden_feature(
    bank: FeatureBank, triplets: np.ndarray, is_train: np.ndarray, *, seed: int = 0
) -> GoldenFeature:
    """Learns the weights and measures how much they gain.

    Triplets with a record that could not be read are left out, and those that
    `split_triplets` leaves out.

    Args:
      bank: the features of all records.
      triplets: `[T, 3]` ints, rows of the bank: anchor, positive, negative.
      is_train: `[N]` bool, which rows are of the training split.
      seed: of folds, of held-out anchors and of the bootstrap.

    Raises:
      ValueError: too few triplets are of training records, no feature agrees with
        them, or most of their positives are the anchor over again.
    """
    rng = np.random.default_rng(seed)
    usable = triplets[bank.where[triplets].all(axis=1)]
    learned, judged = split_triplets(usable, is_train, rng)
    gaps = bank.gaps(learned)
    penalty = max_margin.choose_penalty(gaps, learned[:, 0], rng=rng)
    weights = max_margin.learn_weights(gaps, penalty)
    values = bank.join(weights)
    scale = float(np.median(pair_distances(values, learned[:, :2])))
    if not scale:
        raise ValueError(
            "The median distance from anchor to positive is 0: most of the "
            f"{len(learned):,} triplets to learn from pair an image with a copy of it. "
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
            "triplets_learned": len(learned),
            "anchors_learned": len(np.unique(learned[:, 0])),
            "triplets_judged": len(judged),
            "anchors_judged": len(np.unique(judged[:, 0])),
            "triplets_left_out": len(triplets) - len(learned) - len(judged),
        },
        agreement=_agreements(bank, judged, weights, rng),
    )


def split_triplets(
    triplets: np.ndarray, is_train: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the triplets to learn from and those to judge by.

    The first are those of training records only. The others are those whose anchor is
    not a training record; where there is none, a fifth of the anchors is held out of
    the first. An anchor among training records whose positive or negative is not is
    left out of both.

    Args:
      triplets: `[T, 3]` ints.
      is_train: `[N]` bool.
      rng: draws the held-out anchors.

    Raises:
      ValueError: there are too few triplets of training records.
    """
    learned = triplets[is_train[triplets].all(axis=1)]
    judged = triplets[~is_train[triplets[:, 0]]]
    anchors = np.unique(learned[:, 0])
    needed = 2 if len(judged) else 3
    if len(anchors) < needed:
        raise ValueError(
            f"Of {len(triplets):,} triplets, {len(learned):,} are of training records "
            f"only, with {len(anchors)} anchors; at least {needed} anchors are needed, "
            "and a few hundred to be of use. Rate more images of the training split."
        )
    if not len(judged):
        num_held_out = max(1, round(_HELD_OUT * len(anchors)))
        held_out = rng.choice(anchors, num_held_out, replace=False)
        # Two must be left for cross-validation.
        where = np.isin(learned[:, 0], held_out[: len(anchors) - 2])
        learned, judged = learned[~where], learned[where]
    return learned, judged


def format_table(golden: GoldenFeature) -> str:
    """Returns weights and agreement for people to read, a line per feature."""
    width = max(map(len, golden.agreement))
    lines = [f"{'':{width}}  weight  dims  variance  agreement  95 % interval"]
    for name, found in golden.agreement.items():
        about = f"{'':22}"
        if name in golden.weights:
            about = (
                f"{golden.weights[name]:6.3f}  {golden.dims[name]:4}  "
                f"{golden.explained[name]:8.1%}"
            )
        lines.append(
            f"{name:{width}}  {about}  {found['agreement']:9.3f}  "
            f"{found['low']:.3f} to {found['high']:.3f}"
        )
    counts = golden.counts
    lines.append(
        f"Learned from {counts['triplets_learned']:,} triplets of "
        f"{counts['anchors_learned']:,} anchors, judged on "
        f"{counts['triplets_judged']:,} of {counts['anchors_judged']:,} other anchors; "
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
    equal, learned = gaps.sum(axis=1), gaps @ weights
    found = {
        name: max_margin.agreement(column, samples)
        for name, column in zip(bank.values, gaps.T, strict=True)
    }
    found["equal weights"] = max_margin.agreement(equal, samples)
    found["learned weights"] = max_margin.agreement(learned, samples)
    found["learned - equal"] = max_margin.difference(learned, equal, samples)
    return found
