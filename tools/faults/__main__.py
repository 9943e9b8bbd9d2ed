"""Fault campaign: `python -m tools.faults --json=FILE`.

Tries every kind of fault many times: damaged files, killed and stopped processes, two
commands at once, too little disk or memory. It writes one flat JSON object with six
counts for every kind:

  KIND_tried      trials
  KIND_detected   ended by a sentence that names the fault, or mended with a word
  KIND_harmless   same result to the bit, and no word
  KIND_silent     another result, or an error that names nothing
  KIND_hung       not ended within its time
  KIND_traceback  ended by an exception that is no `UserError`

The last three are failures: each is printed with the flags that repeat it, and the
exit status is 1 if there is one. `--trials=0` has the number that suits each kind.
"""

import argparse
from collections.abc import Sequence
import json
import os
import pathlib
import sys
import tempfile
import time

# Before JAX starts. Programs run for moments here, but compile longer if optimized.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

from deeprank_jax.distributed import backend

# As each command does, so that results here and in processes are the same to the bit.
backend.configure_backend()

from tools.faults import runner  # noqa: E402
from tools.faults.kinds import KINDS, QUICK  # noqa: E402
from tools.faults.samples import Samples  # noqa: E402

_TRIALS, _TRIALS_OF_PROCESSES = 100, 6


def create_parser() -> argparse.ArgumentParser:
    """Creates the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--json", metavar="FILE", type=pathlib.Path, help="file for the counts"
    )
    parser.add_argument(
        "--only", metavar="KIND", action="append", choices=sorted(KINDS),
        help="kind to try, may be repeated (default: all): " + ", ".join(KINDS),
    )  # fmt: skip
    parser.add_argument(
        "--trials", metavar="N", type=int, default=0,
        help=f"trials of each kind (default: {_TRIALS}, and {_TRIALS_OF_PROCESSES} of "
        "those that start processes)",
    )  # fmt: skip
    parser.add_argument("--seed", metavar="N", type=int, default=0)
    parser.add_argument(
        "--first", metavar="I", type=int, default=0, help="number of the first trial"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Tries, prints and writes; ends with status 1 after a failure."""
    options = create_parser().parse_args(arguments)
    counts: dict[str, int] = {}
    print(f"seed {options.seed}, first trial {options.first}", flush=True)
    try:
        _try_all(options, counts)
    except KeyboardInterrupt:
        print("Interrupted: the counts are those so far.")
    if options.json:
        _write(options.json, counts)
        print(f"Wrote {options.json}.")
    if num_failures := runner.count_failures(counts):
        sys.exit(f"tools.faults: {num_failures} trials failed.")


def _write(path: pathlib.Path | None, counts: dict[str, int]) -> None:
    """Writes the counts so far, if a file is named."""
    if path is not None:
        path.write_text(json.dumps(counts, indent=2) + "\n")


def _try_all(options: argparse.Namespace, counts: dict[str, int]) -> None:
    """Tries the kinds, prints the counts of each, and adds them to `counts`."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="deeprank_faults_") as folder:
        samples = Samples(pathlib.Path(folder))
        for name in options.only or KINDS:
            suited = _TRIALS if name in QUICK else _TRIALS_OF_PROCESSES
            runner.run_kinds(
                {name: KINDS[name]},
                samples,
                num_trials=options.trials or suited,
                seed=options.seed,
                first=options.first,
                counts=counts,
                on_trial=lambda: _write(options.json, counts),
            )
            text = ", ".join(
                f"{value} {key.removeprefix(f'{name}_')}"
                for key, value in counts.items()
                if key.startswith(f"{name}_")
            )
            seconds = time.monotonic() - started
            print(f"{name}: {text} ({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
