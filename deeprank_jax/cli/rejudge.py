"""Evaluates the runs of an ablation on triplets that are drawn in another mode.

For example:
  deeprank rejudge --config=ablation_sampling --mode=uniform
"""

import argparse
import pathlib

from deeprank_jax.cli import arguments, output
from deeprank_jax.cli.output import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_config(parser)
    arguments.add_runs(parser)
    parser.add_argument(
        "--mode", choices=arguments.MODES, default="uniform",
        help="mode in which the triplets are drawn",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="FILE", type=arguments.PATH,
        help="summary to write; results/NAME_MODE_triplets.json by default",
    )  # fmt: skip


def check(options: argparse.Namespace) -> None:
    """Checks the path."""
    arguments.check_out(options.out, (".json",))


def run(options: argparse.Namespace) -> Result:
    """Measures the runs and compares the arms."""
    from deeprank_jax.experiments import rejudge

    stem = f"{arguments.config_name(options)}_{options.mode}_triplets"
    out = pathlib.Path(options.out or f"results/{stem}.json")
    table = rejudge.rejudge(
        arguments.config_path(options),
        mode=options.mode,
        workdir=arguments.runs_folder(options),
        out=out,
        command=options.command_line,
        overrides=arguments.override_texts(options),
    )
    return Result(output.read_json(out), f"{table}\n{output.wrote(out)}")
