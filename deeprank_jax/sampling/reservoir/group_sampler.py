"""Sampler of groups of several positives and negatives, from reservoir buffers."""

from deeprank_jax.sampling import counter_rng
from deeprank_jax.sampling.epochs import check_step
from deeprank_jax.sampling.groups import Groups
from deeprank_jax.sampling.reservoir.groups import CAUSES, extend_groups
from deeprank_jax.sampling.reservoir.sampler import TripletSampler
from deeprank_jax.sampling.reservoir.table import DrawTable


class GroupSampler:
    """Draws groups: an anchor with `P` positives and `N` negatives, by relevance.

    The first positive and the first negative are those of `TripletSampler`, whose law
    and corner cases hold. Each further positive is drawn by equation (7), negative `j`
    by (8) for positive `j % P`, and none that the group holds already is drawn again;
    `repeated_positive` and `repeated_negative` count where the buffers hold no other.

    Attributes:
      seed: Seed of all draws.
      shard: Index of this process.
      out_of_class: Configured share of negatives of other categories.
      has_fixed_steps: Always False; see `Sampler`.
    """

    has_fixed_steps = False

    def __init__(
        self,
        triplets: TripletSampler,
        *,
        positives_per_anchor: int,
        negatives_per_anchor: int,
    ):
        """Creates the sampler.

        Args:
          triplets: Sampler of the first positive and negative of each anchor.
          positives_per_anchor: Number of positives `P` of a group, at least 1.
          negatives_per_anchor: Number of negatives `N` of a group, at least 0.

        Raises:
          ValueError: A number is out of its range.
        """
        check_group_size(positives_per_anchor, negatives_per_anchor)
        self._triplets = triplets
        self._num_positives = positives_per_anchor
        self._num_negatives = negatives_per_anchor
        self.seed, self.shard = triplets.seed, triplets.shard
        self.out_of_class = triplets.out_of_class

    def sample(self, step: int, batch_size: int) -> Groups:
        """Draws the groups of a step.

        Args:
          step: Step, at least 0; in any order.
          batch_size: Number of groups `B`, at least 1.

        Raises:
          NoTripletError: The buffers hold no triplet.
          ValueError: An argument is out of its range.
        """
        check_step(step, batch_size)
        table = self._triplets.seek(step)
        rng = counter_rng.step_rng(self.seed, counter_rng.DRAW, step, self.shard)
        draws, counts = self._triplets.draws.draw(batch_size, rng)
        counts.update(dict.fromkeys(CAUSES, 0))
        draws = extend_groups(
            table,
            self._triplets.draws.in_class,
            draws,
            self._num_positives,
            self._num_negatives,
            rng,
            counts,
        )
        return Groups(
            step=step,
            indices=table.index[draws.slots],
            attributes=table.attributes[draws.slots],
            relevance=draws.relevance,
            in_class=draws.in_class,
            counts=dict(counts),
            gauges=self._triplets.gauges(step, table),
        )

    def state(self, step: int) -> dict[str, object]:
        """Returns all that another sampler needs to continue after `step` batches."""
        return {
            **self._triplets.state(step),
            "positives_per_anchor": self._num_positives,
            "negatives_per_anchor": self._num_negatives,
        }

    def continue_as(self, version: int | None) -> None:
        """Draws by the law of an older version from here on, as a run began with it."""
        self._triplets.continue_as(version)

    def seek(self, step: int) -> DrawTable:
        """Ingests records up to a step and returns the table that it draws from."""
        return self._triplets.seek(step)


def check_group_size(positives_per_anchor: int, negatives_per_anchor: int) -> None:
    """Checks the size of a group.

    Raises:
      ValueError: It has no positive, or a negative number of negatives.
    """
    if positives_per_anchor < 1:
        raise ValueError(
            f"positives_per_anchor must be at least 1, got {positives_per_anchor}."
        )
    if negatives_per_anchor < 0:
        raise ValueError(
            f"negatives_per_anchor must be at least 0, got {negatives_per_anchor}; 0 "
            "takes the negatives of an image from the other groups of its batch."
        )
