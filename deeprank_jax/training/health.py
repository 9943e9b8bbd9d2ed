"""Health of training: collapse of the embeddings and idle triplets."""

from collections.abc import Mapping

# Evenly spread unit vectors have the mean squared distance 2; a network that maps all
# images to one place falls below this and rarely recovers.
COLLAPSED_DISTANCE = 0.05
COLLAPSED_RANK = 1.5

ADVICE = (
    "Try a lower config.optimizer.learning_rate, a longer config.schedule.warmup_steps "
    "or --config.loss.miner=sampled."
)


class TrainingMonitor:
    """Describes symptoms of unhealthy training, each once per episode."""

    def __init__(
        self,
        margin: float | None,
        batch_size: int,
        *,
        patience: int = 3,
        advice: str = ADVICE,
    ):
        """Creates the monitor.

        Args:
          margin: Margin of the hinge, which is its loss when all distances are equal;
            None for a loss without one, whose triplets are always active.
          batch_size: Triplets in a batch.
          patience: Observations in a row that make an episode.
          advice: Remedies of a collapse.
        """
        self._advice = advice
        self._margin = margin
        self._batch_size = batch_size
        self._patience = patience
        self._seen: dict[str, int] = {}

    def observe(self, metrics: Mapping[str, float]) -> list[str]:
        """Returns the symptoms in the metrics of one logging interval, in sentences.

        Args:
          metrics: Means of `loss`, `mean_distance`, `effective_rank`, and for triplets
            of `active_share` and `sampler_failures/repeated`, those of a batch that
            repeat another.
        """
        margin, advice = self._margin, self._advice
        active_share = metrics.get("active_share", 1.0)
        at_margin = margin is not None and abs(metrics["loss"] - margin) < 0.02 * margin
        repeated = metrics.get("sampler_failures/repeated", 0.0) / self._batch_size
        symptoms = {
            "Training has collapsed: all embeddings lie within a mean squared "
            f"distance of {COLLAPSED_DISTANCE} of each other. {advice}": (
                metrics["mean_distance"] < COLLAPSED_DISTANCE
            ),
            "Training has collapsed: the embeddings vary along fewer than "
            f"{COLLAPSED_RANK} directions. {advice}": (
                metrics["effective_rank"] < COLLAPSED_RANK
            ),
            "Training does not get off the ground: the loss sits at the margin and "
            f"every triplet is active, as if all distances were equal. {advice}": (
                at_margin and active_share > 0.99
            ),
            "Nothing is left to learn from these triplets: none violates the margin. "
            "Try --config.loss.miner=semi_hard or a larger config.loss.margin.": (
                active_share == 0.0
            ),
            "More than a tenth of the triplets repeat others, since the buffers hold "
            "too few negatives. Raise config.sampler.capacity, or set a finer "
            "config.triplets.category_level.": repeated > 0.1,
        }
        return [text for text, here in symptoms.items() if self._episode(text, here)]

    def _episode(self, text: str, present: bool) -> bool:
        self._seen[text] = self._seen.get(text, 0) + 1 if present else 0
        return self._seen[text] == self._patience
