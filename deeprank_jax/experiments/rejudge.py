r"""Evaluation of an ablation's runs on triplets drawn in another mode.

The evaluation triplets of a run are drawn by importance sampling, which is also how one
arm's training triplets are drawn. Triplets of another mode show how far the comparison
depends on that.
"""

from collections.abc import Sequence
import pathlib

import numpy as np

from deeprank_jax import data, evaluation, files, relevance, sampling
from deeprank_jax.errors import DataError
from deeprank_jax.evaluation.paired_intervals import compare_arms, format_comparison
from deeprank_jax.experiments import ablation, plans
from deeprank_jax.training import experiment
from deeprank_jax.training.workdir import read_embeddings


def rejudge(
    path: pathlib.Path,
    *,
    mode: str,
    workdir: pathlib.Path,
    out: pathlib.Path,
    command: str,
    overrides: Sequence[str] = (),
) -> str:
    """Measures the runs of an ablation on triplets of a mode and writes the summary.

    Args:
      path: Path of the config file with the ablation's plan.
      mode: Mode of the evaluation triplets, one of `sampling.MODES`.
      workdir: Folder of the runs.
      out: Path of the summary, a JSON file.
      command: Command line, for the summary.
      overrides: `KEY=VALUE` overrides of the config.

    Returns:
      The comparison as a Markdown table.

    Raises:
      ConfigError: The file is not a plan, or an override does not fit the config.
      DataError: A run of the ablation is missing.
    """
    plan = plans.load_plan(path, ablation.PLAN)
    config = plans.override(plan.get_config(), overrides)
    kind = experiment.create_run_relevance(config)
    splits = relevance.attach(kind, data.create_records(config.data))
    records = data.select_split(splits, "test")
    level = config.triplets.category_level
    options = config.evaluation.evaluators.triplets
    candidates = sampling.create_candidates(records, kind, level)
    values: dict[str, dict[str, list[float]]] = {}
    for seed in plan.SEEDS:
        triplets = sampling.sample_evaluation_triplets(
            candidates,
            kind,
            options.num,
            seed=seed,
            mode=mode,
            positive_cap=config.triplets.positive_cap,
            min_relevance_gap=config.triplets.min_relevance_gap,
            out_of_class=options.out_of_class,
        )
        evaluator = evaluation.Triplets(
            records.labels, triplets, category_level=level, k=options.k
        )
        for arm in plan.ARMS:
            embeddings, ok = _read_embeddings(workdir / f"{arm}-seed{seed}")
            for name, value in evaluator.run(embeddings, ok):
                arms = values.setdefault(f"triplets/{name}", {})
                arms.setdefault(arm, []).append(value)
    metrics, pairs = [x for x in plan.METRICS if x in values], plans.arm_pairs(plan)
    comparison = {name: compare_arms(values[name], pairs) for name in metrics}
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(out, {"command": command, "test": comparison})
    return format_comparison(comparison)


def _read_embeddings(workdir: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    path = workdir / "test_embeddings.npz"
    try:
        return read_embeddings(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; run `deeprank ablation` first.") from error
    except DataError as error:
        raise DataError(
            f"{error} For that, remove {workdir} and run `deeprank ablation` again."
        ) from error
