"""Front matter of a model card: YAML with which model hubs list and find a model."""

from collections.abc import Iterator, Mapping
import json
import math
from typing import Any

import ml_collections

from deeprank_jax import logs

LIBRARY = "deeprank-jax"
# Licence of a model whose owner has not named one, as hubs spell it.
NO_LICENSE = "unknown"
_TASK = {"type": "image-feature-extraction", "name": "Image similarity"}
_TAGS = ("image-similarity", "image-retrieval", "metric-learning", "jax", "stablehlo")


def front_matter(
    info: Mapping[str, Any], config: ml_collections.ConfigDict, license_name: str
) -> str:
    """Returns the front matter, with a line `---` before and after it.

    Args:
      info: Contents of `model.json`.
      config: Config of the run.
      license_name: Licence of the model, as the hub spells it, e.g. `"apache-2.0"`.
    """
    tags = [*_TAGS, *(["onnx"] if "onnx" in info["agreement"] else [])]
    lines = [
        f"library_name: {_scalar(LIBRARY)}",
        f"license: {_scalar(license_name)}",
        f"pipeline_tag: {_scalar(_TASK['type'])}",
    ]
    if info["checkpoint_step"] is None or config.model.weights:
        lines.append(f"base_model: {_scalar(config.model.trunk.name)}")
    lines += ["tags:", *(f"- {_scalar(tag)}" for tag in tags)]
    if metrics := [*_metrics(info["metrics"])]:
        lines += [
            "model-index:",
            f"- name: {_scalar(info['name'])}",
            "  results:",
            f"  - task: {_scalar(_TASK)}",
            f"    dataset: {_scalar(_dataset(info['dataset']))}",
            "    metrics:",
            *(f"    - {_scalar(metric)}" for metric in metrics),
        ]
    return "\n".join(["---", *lines, "---", "", ""])


def _dataset(dataset: Mapping[str, Any]) -> dict[str, str]:
    name = dataset["name"]
    split = "test" if "test_images" in dataset else "validation"
    return {"name": name, "type": name, "split": split}


def _metrics(metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields type, name and value of each metric of the model, without counts."""
    for evaluator, rows in metrics.items():
        for name, row in rows.items():
            value = row.get("model")
            is_number = isinstance(value, int | float) and math.isfinite(value)
            if is_number and not name.startswith("num_"):
                yield {"type": name, "name": f"{evaluator}: {name}", "value": value}


def _scalar(value: Any) -> str:
    """Returns a text, a number or a mapping in the JSON that YAML understands."""
    if isinstance(value, str):
        value = logs.escaped(value)
    elif isinstance(value, Mapping):
        return (
            f"{{{', '.join(f'{_scalar(k)}: {_scalar(x)}' for k, x in value.items())}}}"
        )
    # Not as pairs of surrogates, which YAML does not join.
    return json.dumps(value, ensure_ascii=False)
