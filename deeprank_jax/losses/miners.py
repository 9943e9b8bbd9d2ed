"""Miners, by the names of `config.loss.miner`."""

import jax

from deeprank_jax.losses import mining
from deeprank_jax.losses.batch_mining import Anchors, Mined, Miner

Array = jax.Array


class Sampled:
    """No mining: each triplet keeps the negative of the sampler, as in the paper."""

    mines_positives = False
    warmup = None

    def __call__(
        self, anchors: Anchors, images: Array, *, min_relevance_gap: float, key: Array
    ) -> Mined:
        """Raises an error: the loss does not call this miner."""
        raise NotImplementedError


class SemiHard:
    """The nearest negative beyond the positive: `mining.semi_hard_negatives`."""

    mines_positives = False
    warmup = None

    def __call__(
        self, anchors: Anchors, images: Array, *, min_relevance_gap: float, key: Array
    ) -> Mined:
        """Returns the negatives; the positives stay."""
        del key
        negatives, has_negative = mining.semi_hard_negatives(
            anchors.embeddings,
            images[anchors.positives],
            images,
            positive_relevance=anchors.positive_relevance,
            relevance=anchors.relevance,
            min_relevance_gap=min_relevance_gap,
        )
        return Mined(anchors.positives, negatives, has_negative)


class DistanceWeighted:
    """A negative from all distances alike: `mining.distance_weighted_negatives`."""

    mines_positives = False
    warmup = None

    def __call__(
        self, anchors: Anchors, images: Array, *, min_relevance_gap: float, key: Array
    ) -> Mined:
        """Returns the negatives; the positives stay."""
        # One key per anchor, so that its draw is the same on whichever device it is.
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, anchors.columns)
        negatives, has_negative = mining.distance_weighted_negatives(
            keys,
            anchors.embeddings,
            images,
            columns=anchors.columns,
            positive_relevance=anchors.positive_relevance,
            relevance=anchors.relevance,
            min_relevance_gap=min_relevance_gap,
        )
        return Mined(anchors.positives, negatives, has_negative)


class BatchHard:
    """The farthest positive and the nearest negative: `mining.hardest_pairs`."""

    mines_positives = True

    def __init__(self, *, warmup_steps: int = 0):
        """Creates the miner.

        Args:
          warmup_steps: Number of first steps with semi-hard negatives: from random
            weights batch-hard mining collapses.

        Raises:
          ValueError: The number is negative.
        """
        if warmup_steps < 0:
            raise ValueError(
                f"warmup_steps must be at least 0, got {warmup_steps}; 0 is no warm-up."
            )
        self.warmup: tuple[int, Miner] | None = None
        if warmup_steps:
            self.warmup = warmup_steps, SemiHard()

    def __call__(
        self, anchors: Anchors, images: Array, *, min_relevance_gap: float, key: Array
    ) -> Mined:
        """Returns positives and negatives."""
        del key
        return Mined(
            *mining.hardest_pairs(
                anchors.embeddings,
                images,
                columns=anchors.columns,
                positive_columns=anchors.positives,
                positive_relevance=anchors.positive_relevance,
                relevance=anchors.relevance,
                min_relevance_gap=min_relevance_gap,
            )
        )
