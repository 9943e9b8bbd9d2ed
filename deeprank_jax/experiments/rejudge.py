r"""Judges the runs of deeprank_jax.experiments.ablation once more, by triplets drawn in another mode.

  python -m deeprank_jax.experiments.rejudge --config=configs/ablation_sampling.py --mode=uniform

The triplets that a run is judged by follow the law of importance sampling, which is
also one arm's law of training; this says whether the answer hangs on that. Writes
`results/<config>_<mode>_triplets.json`.
"""

from collections.abc import Sequence
import pathlib

from absl import app, flags, logging
import numpy as np

from deeprank_jax import data, evaluation, files, logs, relevance, sampling
from deeprank_jax.evaluation.paired_intervals import compare_arms, format_comparison
from deeprank_jax.experiments import ablation, plans
from deeprank_jax.training import experiment

# --config, --workdir, --out and --data_dir are flags of deeprank_jax.experiments.ablation.
_MODE = flags.DEFINE_enum("mode", "uniform", sampling.MODES, "Of the triplets.")


def main(argv: Sequence[str]) -> None:
    """Draws, measures, compares."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    path = pathlib.Path(flags.FLAGS.config)
    workdir = pathlib.Path(flags.FLAGS.workdir or f"runs/{path.stem}")
    plan = plans.load_plan(path, ablation.PLAN)
    config = plan.get_config()
    config.data.dir = flags.FLAGS.data_dir
    kind = experiment.create_run_relevance(config)
    records = relevance.attach(kind, data.create_records(config.data))["test"]
    level, options = config.sampler.category_level, config.evaluation.triplets
    candidates = sampling.create_candidates(records, kind, level)
    values: dict[str, dict[str, list[float]]] = {}
    for seed in plan.SEEDS:
        triplets = sampling.sample_evaluation_triplets(
            candidates,
            kind,
            options.num,
            seed=seed,
            mode=_MODE.value,
            positive_cap=config.sampler.positive_cap,
            min_relevance_gap=config.sampler.min_relevance_gap,
            out_of_class=options.out_of_class,
        )
        evaluator = evaluation.Triplets(
            records.labels, triplets, category_level=level, k=options.k
        )
        for arm in plan.ARMS:
            file = workdir / f"{arm}-seed{seed}" / "test_embeddings.npz"
            if not file.exists():
                raise SystemExit(
                    f"error: {file} is missing; run deeprank_jax.experiments.ablation first."
                )
            with np.load(file) as saved:
                found = evaluator.run(saved["embeddings"], saved["ok"])
                for name, value in found:
                    values.setdefault(f"triplets/{name}", {}).setdefault(arm, [])
                    values[f"triplets/{name}"][arm].append(value)
    names = [name for name in plan.METRICS if name in values]
    compared = {name: compare_arms(values[name]) for name in names}
    stem = f"{path.stem}_{_MODE.value}_triplets"
    out = pathlib.Path(flags.FLAGS.out or f"results/{stem}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    command = f"python -m deeprank_jax.experiments.rejudge --config={path} --mode={_MODE.value}"
    files.write_json(out, {"command": command, "test": compared})
    print(format_comparison(compared), f"Wrote {out}.", sep="\n")


if __name__ == "__main__":
    logs.show_own(logging.WARNING)
    app.run(main)
