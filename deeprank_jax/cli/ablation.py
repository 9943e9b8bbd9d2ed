"""Compares arms of an experiment over several seeds, each arm tuned on the same grid.

  deeprank ablation --config=ablation_sampling

The config file defines ARMS, GRID, TUNING_SEED, SEEDS and METRICS. Every run is a
process in a folder of its own; finished runs are reused.
"""

import argparse
import pathlib

from deeprank_jax.cli import arguments, output
from deeprank_jax.cli.output import Result

USES_JAX = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_config(parser)
    arguments.add_runs(parser)
    parser.add_argument(
        "--out", metavar="FILE", type=arguments.PATH,
        help="summary to write; results/NAME.json by default",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", metavar="N", type=arguments.at_least(1), default=1,
        help="number of runs at the same time",
    )  # fmt: skip


def check(options: argparse.Namespace) -> None:
    """Checks the path."""
    arguments.check_out(options.out, (".json",))


def run(options: argparse.Namespace) -> Result:
    """Tunes, trains and compares the arms."""
    from deeprank_jax.experiments import ablation

    name = arguments.config_name(options)
    out = pathlib.Path(options.out or f"results/{name}.json")
    table = ablation.run_ablation(
        arguments.config_path(options),
        workdir=arguments.runs_folder(options),
        out=out,
        command=options.command_line,
        overrides=arguments.override_texts(options),
        jobs=options.jobs,
    )
    return Result(output.read_json(out), f"{table}\n{output.wrote(out)}")
