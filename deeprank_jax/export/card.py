"""Model card: description, use and metrics of an exported model."""

from collections.abc import Mapping
import pathlib
from typing import Any

import ml_collections

from deeprank_jax.export import hub_card
from deeprank_jax.export.network import PLATFORMS
from deeprank_jax.report import templates

_TASKS = {
    "ranking": "by ranking triplets",
    "classification": "by classifying images",
    "attributes": "by classifying several attributes of images",
    "self_supervised": "without labels, by telling images apart",
    "autoencoder": "without labels, by restoring images from their embeddings",
    "pairs": "on pairs of images, each similar or not",
}


def write_card(
    path: pathlib.Path,
    info: Mapping[str, Any],
    config: ml_collections.ConfigDict,
    folder: str,
    hub_license: str | None = None,
) -> None:
    """Writes the card.

    Args:
      path: Path of the card.
      info: Contents of `model.json`.
      config: Config of the run.
      folder: Name of the model's folder.
      hub_license: Licence for the front matter that model hubs read; None for a card
        without one.
    """
    rows = [row for metrics in info["metrics"].values() for row in metrics.values()]
    systems = dict.fromkeys(s for row in rows for s in row if s != "model")
    card = templates.render(
        pathlib.Path(__file__).with_name("card.md"),
        autoescape=False,
        info=info,
        folder=folder,
        task=_TASKS.get(config.task.name, config.task.name),
        systems=list(systems),
        forms=[form for form in ("stablehlo", "onnx") if form in info["agreement"]],
        platforms=", ".join(PLATFORMS),
        number=_format,
    )
    if hub_license is not None:
        card = hub_card.front_matter(info, config, hub_license) + card
    path.write_text(card, "utf-8", "backslashreplace")


def _format(value: float) -> str:
    return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.0f}"
