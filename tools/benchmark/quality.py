"""Retrieval by our demo's recipe and by the losses of pytorch-metric-learning.

  python -m tools.benchmark quality --torch_python=PATH --out=runs/quality --json=FILE

Network, images, images a step and steps are the same, from random weights. Ours also
averages its weights, embeds shifted images and whitens; `quality_torch.py` sets the
peers' optimizer and augmentation. Three seeds of each take 95 minutes on two cores; a
second call continues where the first ended.
"""

import argparse
from collections.abc import Mapping, Sequence
import json
import os
import pathlib
import subprocess

import ml_collections
import numpy as np

from deeprank_jax import config as config_lib
from deeprank_jax.data import create_records
from deeprank_jax.distributed import backend
from deeprank_jax.errors import ConfigError, DataError
from deeprank_jax.evaluation.paired_intervals import compare_arms, format_comparison
from deeprank_jax.evaluation.split import SplitEvaluation
from deeprank_jax.experiments import runs
from deeprank_jax.relevance import attach
from deeprank_jax.training import experiment
from deeprank_jax.training.metrics_writer import read_metrics
from tools.benchmark import step

_SEEDS = (0, 1, 2)
_WIDTHS = (32, 64, 128, 256)  # Of `torch_networks.ConvNet`.
PEERS = ("supcon", "multi_similarity", "proxy_anchor", "triplet")
_PER_CLASS = 4
# Names in the result, of metrics as evaluators name them.
METRICS = {
    "recall_at_1": "retrieval/recall@1",
    "map_at_r": "retrieval/map@r",
    "similarity_precision": "triplets/precision",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark."""
    step.add_torch_python(parser)
    parser.add_argument(
        "--out", metavar="DIR", type=pathlib.Path, default=pathlib.Path("runs/quality"),
        help="folder of the runs (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--config", default="emoji", help="our recipe (default: %(default)s)"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE",
        help="changes of the config, e.g. data.dir=DIR",
    )  # fmt: skip


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Returns the metrics of ours and of the best peer, and their difference.

    Args:
      options: Values of `add_arguments`.
    """
    backend.configure_backend()
    words = [f"--config.{override}" for override in options.overrides]
    _check_network(config_lib.load_config(options.config, words))
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    ours = runs.Runs(
        pathlib.Path(options.config), out / "ours", common=options.overrides
    )
    ours.train_all(
        {f"seed_{seed}": {"seed": seed} for seed in _SEEDS}, description="ours"
    )
    config = config_lib.read_run_config(out / "ours" / f"seed_{_SEEDS[0]}")
    evaluation, fingerprint = _write_images(config, out)
    num_images = config.batch_size * (
        1 + config.sampler.positives_per_anchor + config.sampler.negatives_per_anchor
    )
    values = {
        "ours": [_measure_ours(evaluation, out, seed, num_images) for seed in _SEEDS]
    }
    case = {
        "images": str(out / "images.npz"),
        "records": fingerprint,
        "steps": config.num_steps,
        "num_classes": num_images // _PER_CLASS,
        "per_class": _PER_CLASS,
        "dim": config.model.embedding_dim,
        "paths": [dict(x) for x in config.model.paths],
    }
    for peer in PEERS:
        values[peer] = []
        for seed in _SEEDS:
            path = out / f"{peer}_{seed}.npz"
            of_run = {"loss": peer, "seed": seed, "out": str(path)}
            _train_peer(case | of_run, options.torch_python)
            with np.load(path) as file:
                metrics = _measure(evaluation, file["embeddings"])
                values[peer].append({**metrics, "seconds": float(file["seconds"])})
    return summarize(values)


def _check_network(config: ml_collections.ConfigDict) -> None:
    """Checks that the peers can have the network of a config.

    Raises:
      ConfigError: They cannot.
    """
    trunk = {"widths": _WIDTHS, **config.model.trunk.to_dict()}
    if (
        trunk != {"name": "convnet", "widths": _WIDTHS}
        or not config.model.embedding_dim
        or config.model.ensemble
    ):
        raise ConfigError(
            f"config.model.trunk={trunk} with embedding_dim="
            f"{config.model.embedding_dim} is not the network that the peers have: a "
            f"convnet of widths {_WIDTHS} with a linear map, and none beside it; "
            "choose another --config."
        )


def _write_images(
    config: ml_collections.ConfigDict, out: pathlib.Path
) -> tuple[SplitEvaluation, str]:
    """Writes the images that the peers read.

    Returns:
      The evaluation of the test split, and the fingerprint of the training records.
    """
    relevance = experiment.create_run_relevance(config)
    records = attach(relevance, create_records(config.data))
    images = {}
    for split in ("train", "test"):
        with experiment.create_reader(config, records[split]) as reader:
            images[split], ok = reader.load(np.arange(len(records[split])))
        if not ok.all():
            raise RuntimeError(f"{np.sum(~ok)} images of {split} cannot be read.")
    _, labels = np.unique(records["train"].labels[:, -1], return_inverse=True)
    np.savez(
        out / "images.npz", train=images["train"], test=images["test"], labels=labels
    )
    test = records["test"]
    with experiment.create_reader(config, test) as reader:  # Reads nothing.
        evaluation = SplitEvaluation(config, "test", test, reader, relevance, out)
    return evaluation, records["train"].fingerprint


def _measure(evaluation: SplitEvaluation, embeddings: np.ndarray) -> dict[str, float]:
    """Returns the metrics of embeddings `[N, D]` of the test split."""
    metrics = evaluation.measure(embeddings, np.ones(len(embeddings), bool))
    values = {}
    for name, metric in METRICS.items():
        evaluator, key = metric.split("/")
        values[name] = metrics[evaluator][key]
    return values


def _measure_ours(
    evaluation: SplitEvaluation, out: pathlib.Path, seed: int, num_images: int
) -> dict[str, float]:
    """Returns the metrics of one of our runs, and its seconds of training."""
    workdir = out / "ours" / f"seed_{seed}"
    with np.load(workdir / "test_embeddings.npz") as file:
        values = _measure(evaluation, file["embeddings"])
    rate = "train/images_per_second"
    lines = [line for line in read_metrics(workdir) if rate in line]
    steps = np.diff([line["step"] for line in lines], prepend=0)
    rates = np.array([line[rate] for line in lines])
    return {**values, "seconds": float(np.sum(steps * num_images / rates))}


def _train_peer(case: Mapping[str, object], python: str) -> None:
    """Trains a peer in a process of its own, unless it is trained already.

    Args:
      case: Argument of `quality_torch`.
      python: Python of an environment with pytorch-metric-learning.

    Raises:
      DataError: The peer was trained with other settings.
      RuntimeError: The process has failed; its message is above.
    """
    text, path = json.dumps(case), pathlib.Path(str(case["out"]))
    if path.exists():
        with np.load(path) as file:
            before = str(file["case"]) if "case" in file else "of an older version"
        if before != text:
            raise DataError(
                f"{path} was trained with other settings, {before}; remove it, or give "
                "another --out."
            )
        return
    # Other benchmarks use one core; this one uses all.
    hidden = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    process = subprocess.run(
        [python, "-m", "tools.benchmark.quality_torch", text],
        env={k: v for k, v in os.environ.items() if k not in hidden},
    )
    if process.returncode:
        raise RuntimeError(
            f"The process that trains {case['loss']} has ended; its message is above. "
            "Install pytorch-metric-learning by requirements-bench.txt, perhaps in "
            "another environment: --torch_python=PATH."
        )


def summarize(values: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """Prints a table, and returns ours beside the best peer of each metric.

    Args:
      values: Metrics and `seconds` of each seed, by system; "ours" is one.
    """
    comparisons = {
        name: compare_arms(
            {system: [x[name] for x in seeds] for system, seeds in values.items()}
        )
        for name in METRICS
    }
    print(format_comparison(comparisons))
    result: dict[str, float] = {}
    for name, comparison in comparisons.items():
        means = comparison["mean"]
        best = max((x for x in means if x != "ours"), key=means.__getitem__)
        difference = comparison["difference"][f"ours - {best}"]
        result |= {
            f"{name}_ours": means["ours"],
            f"{name}_best_peer": means[best],
            f"{name}_difference_low": difference["low"],
            f"{name}_difference_high": difference["high"],
        }
    seconds = {
        system: float(np.mean([x["seconds"] for x in seeds]))
        for system, seeds in values.items()
    }
    result |= {f"seconds_{system}": x for system, x in seconds.items()}
    fastest = min(x for system, x in seconds.items() if system != "ours")
    return {**result, "seconds_ratio": seconds["ours"] / fastest}
