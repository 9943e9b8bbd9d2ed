"""Titles and notes of the training charts, in plain words."""

from collections.abc import Mapping, Sequence
from typing import Any

ACTIVE = "share of triplets whose loss is above 0; the others teach nothing"
STALL = "share of the time in which training waited for images"

# Title and note by the name of a chart.
_NOTES = {
    "train/loss": ("Loss", "mean of the training batches"),
    "train/active_share": ("Active share", ACTIVE),
    "train/images_per_second": ("Images per second", "of all processes together"),
    "train/stall_share": ("Stall", STALL),
    "train/mean_distance": (
        "Mean distance",
        "squared, between embeddings: 2 if they are evenly spread, 0 if all are equal",
    ),
    "train/effective_rank": (
        "Effective rank",
        "roughly the number of directions in which the embeddings vary",
    ),
    "train/explained_variance": (
        "Explained variance",
        "share of the variance of a batch of images that their reconstructions "
        "explain: 0 if all are the mean image, 1 if they are exact",
    ),
    "train/grad_norm": ("Gradient norm", "before clipping"),
    "train/positive_distance": (
        "Distance of positives",
        "mean squared distance of an anchor and its positive",
    ),
    "train/positives": (
        "Positives",
        "shares by the finest level that positive and anchor have in common",
    ),
    "train/negatives": (
        "Negatives",
        "shares by the finest level that negative and anchor have in common",
    ),
    "train/skipped": ("Skipped steps", "share of steps with numbers not finite"),
    "train/top1": ("Accuracy in training", "share of images given their own class"),
}


def note_of(chart: str) -> tuple[str, str]:
    """Returns title and note of a chart; its name and "" if it has none.

    Args:
      chart: Name of the chart, see `curves.create_charts`.
    """
    return _NOTES.get(chart, (chart, ""))


def name_levels(
    metrics: Sequence[Mapping[str, Any]], names: Sequence[str], titles: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns metrics whose shares per level are named by what two images share.

    Args:
      metrics: Entries of metrics.jsonl.
      names: Names of the levels, from coarse to fine.
      titles: Titles of the levels.
    """
    shared = {
        f"train/{side}/{name}": f"train/{side}/same {title}"
        for side in ("positives", "negatives")
        for name, title in zip(names, titles, strict=True)
    }
    shared |= {
        f"train/{side}/none": f"train/{side}/another {titles[0]}"
        for side in ("positives", "negatives")
    }
    return [
        {shared.get(name, name): value for name, value in entry.items()}
        for entry in metrics
    ]
