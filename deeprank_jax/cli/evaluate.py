"""Measures a model or a run on images with labels, and writes a report.

Images of one label should be nearest to each other: every image is a query, and all
others are its gallery. Baselines are 16x16 pixels and, for a run, its untrained
network.

  deeprank evaluate photos --model=model --out=evaluation
  deeprank evaluate tfds:emoji/test --workdir=runs/folder
  deeprank evaluate --workdir=runs/emoji --split=validation
  deeprank evaluate --model=model --config=emoji --config.data.dir=data
"""

import argparse
import dataclasses
from typing import TYPE_CHECKING

from deeprank_jax.cli import arguments
from deeprank_jax.cli.output import Result, format_table, wrote

if TYPE_CHECKING:
    from deeprank_jax.experiments.evaluate import Evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "source", metavar="IMAGES", nargs="?", type=arguments.PATH,
        help="images with labels: a folder with a folder per class; a .csv or .parquet "
        "list; or tfds:NAME/SPLIT; without it, a split of --config or of the run",
    )  # fmt: skip
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument(
        "--model", metavar="DIR", type=arguments.PATH,
        help="folder of a model written by `deeprank export`",
    )  # fmt: skip
    network.add_argument(
        "--workdir", metavar="DIR", type=arguments.PATH, help="folder of a run"
    )
    arguments.add_config(parser, required=False)
    parser.add_argument(
        "--split", metavar="NAME",
        help="split of the config's or the run's dataset; test by default",
    )  # fmt: skip
    parser.add_argument(
        "--data_dir", metavar="DIR", type=arguments.PATH, default="data",
        help="folder in which TFDS keeps its datasets",
    )  # fmt: skip
    parser.add_argument(
        "--label_feature", metavar="NAME", default="",
        help="feature of a TFDS dataset, or column of a list, with the labels",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="DIR", type=arguments.PATH,
        help="folder for report/index.html, results.json and intervals.json",
    )  # fmt: skip
    parser.set_defaults(usage_error=parser.error)


def check(options: argparse.Namespace) -> None:
    """Checks the combination of arguments, and the paths."""
    if options.source is not None and (options.config or options.split):
        options.usage_error("give either IMAGES or --config and --split")
    if options.source is None and not (options.config or options.workdir):
        options.usage_error("give IMAGES, or the --config of a dataset")
    if options.source is None and options.label_feature:
        options.usage_error("--label_feature would change nothing without IMAGES")
    if options.overrides and not options.config:
        options.usage_error("overrides --config.KEY=VALUE need a --config")
    arguments.check_model(options.model)
    if options.workdir is not None:
        arguments.check_workdir(options.workdir)
    if options.out is not None:
        arguments.check_writable(options.out)


def run(options: argparse.Namespace) -> Result:
    """Evaluates."""
    from deeprank_jax.experiments import evaluate

    if options.model is not None:
        network = evaluate.load_model(options.model)
    else:
        network = evaluate.load_run(options.workdir)
    if options.source is not None:
        dataset = evaluate.open_images(
            options.source,
            network,
            data_dir=options.data_dir,
            label_feature=options.label_feature,
        )
    else:
        config = network.config
        if options.config:
            config = arguments.load_config(options)
        dataset = evaluate.open_split(config, options.split or "test")
    evaluation = evaluate.evaluate(
        network, dataset, options.out, command=options.whole_command_line
    )
    return Result(dataclasses.asdict(evaluation), format_evaluation(evaluation))


def format_evaluation(evaluation: "Evaluation") -> str:
    """Returns the metrics as a table, with the interval of the model.

    Args:
      evaluation: Metrics of a network and its baselines.
    """
    rows = []
    systems: dict[str, None] = {}
    for metrics in evaluation.results.values():
        for values in metrics.values():
            systems |= dict.fromkeys(values)
    for evaluator, metrics in evaluation.results.items():
        for metric, values in metrics.items():
            ends = evaluation.intervals.get(evaluator, {}).get(metric, {}).get("model")
            interval = f"[{_show(ends['low'])}, {_show(ends['high'])}]" if ends else ""
            numbers = [_show(values.get(system)) for system in systems]
            rows.append([f"{evaluator}/{metric}", numbers[0], interval, *numbers[1:]])
    names = list(systems)
    title = f"{evaluation.network} on {evaluation.dataset}, "
    text = f"{title}{evaluation.num_images:,} images\n\n"
    text += format_table(("metric", *names[:1], "95 %", *names[1:]), rows)
    return f"{text}\n\n{wrote(evaluation.report)}" if evaluation.report else text


def _show(value: object) -> str:
    if not isinstance(value, int | float):
        return "-"
    is_large = abs(value) >= 100 or (value > 1 and float(value).is_integer())
    return f"{value:,.0f}" if is_large else f"{value:.3f}"
