"""Report and JSON files of an evaluation."""

import pathlib

import ml_collections
import numpy as np

from deeprank_jax import files, report, version
from deeprank_jax.evaluation.best_metric import describe_metrics
from deeprank_jax.evaluation.compare import SystemComparison, count_query_classes
from deeprank_jax.experiments.evaluation_inputs import Dataset, Network
from deeprank_jax.training import experiment

_THUMBNAIL = 72  # Pixels.


def write_evaluation(
    folder: pathlib.Path,
    network: Network,
    dataset: Dataset,
    config: ml_collections.ConfigDict,
    embedded: tuple[np.ndarray, np.ndarray],
    comparison: SystemComparison,
    command: str,
) -> pathlib.Path:
    """Writes the files of an evaluation, and returns the path of the report."""
    embeddings, ok = embedded
    records, split = dataset.records, dataset.split
    results = {split: comparison.results}
    intervals = {split: comparison.intervals}
    files.write_json(folder / "intervals.json", intervals)
    files.write_json(folder / "results.json", results)
    with experiment.create_reader(config, records, image_size=_THUMBNAIL) as reader:
        return report.write_report(
            report.ReportInputs(
                title=f"{network.name} on {dataset.name}",
                command=command,
                facts=_facts(network, dataset, config, ok),
                results=results,
                intervals=intervals,
                num_classes={split: count_query_classes(records.labels)},
                metrics=(),
                embeddings=embeddings,
                records=records,
                relevance=dataset.relevance,
                thumbnails=lambda indices: reader.load(indices)[0],
                ok=ok,
                ranking=comparison.ranking,
                matrices=comparison.matrices,
                meanings=describe_metrics(config.evaluation.evaluators.to_dict()),
                seed=config.seed,
            ),
            folder / "report",
        )


def _facts(
    network: Network,
    dataset: Dataset,
    config: ml_collections.ConfigDict,
    ok: np.ndarray,
) -> dict[str, str]:
    records = dataset.records
    facts = {
        **network.description,
        "Dataset": dataset.name,
        "Images": f"{len(records):,} ({len(np.unique(records.labels[:, -1])):,} "
        f"classes); {config.data.image_size} pixels",
        "Levels": " > ".join(records.level_titles),
        "Relevance": config.relevance.name,
        "Queries": "every image, searched for among all others",
        "Commit": version.commit(),
    }
    if unreadable := int(np.count_nonzero(~ok)):
        facts["Left out"] = f"{unreadable:,} images that could not be embedded"
    return facts
