"""Computes the paper's table on a dataset: every baseline and every network.

  deeprank paper-table --config=paper_table_emoji

The config file defines the NETWORKS to train and the SWEEP. Finished runs are reused.
Writes NAME.json, NAME.csv and NAME.md, and a page in the workdir.
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
        "--out", metavar="DIR", type=arguments.PATH, default="results",
        help="folder for the tables",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", metavar="N", type=arguments.at_least(1), default=1,
        help="number of the sweep's runs at the same time",
    )  # fmt: skip
    parser.add_argument(
        "--nosweep", dest="sweep", action="store_false", help="leave out the sweep"
    )


def check(options: argparse.Namespace) -> None:
    """Checks the path."""
    arguments.check_writable(options.out)


def run(options: argparse.Namespace) -> Result:
    """Trains, measures and writes the table."""
    from deeprank_jax.experiments.paper_table.run import run_paper_table

    path = arguments.config_path(options)
    out = pathlib.Path(options.out)
    text = run_paper_table(
        path,
        workdir=arguments.runs_folder(options),
        out=out,
        command=options.command_line,
        overrides=arguments.override_texts(options),
        jobs=options.jobs,
        sweep=options.sweep,
    )
    return Result(output.read_json(out / f"{path.stem}.json"), text)
