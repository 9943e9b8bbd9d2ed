"""Measures what the project promises: `python -m tools.benchmark NAME --json=FILE`.

NAME is one of BENCHMARKS. Prints a table and writes one flat JSON object.
"""

from collections.abc import Callable, Mapping, Sequence
import json
import os
import pathlib

# One core: what is counted is the work, not how it is spread.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from absl import app, flags  # noqa: E402  NumPy reads the variables when it starts.

from tools.benchmark import embed, metrics, search  # noqa: E402
from tools.benchmark import sampler as sampler_lib  # noqa: E402
from tools.benchmark import step as step_lib  # noqa: E402

BENCHMARKS: Mapping[str, Callable[[], dict[str, float]]] = {
    "embed": embed.measure,
    "metrics": metrics.measure,
    "sampler": sampler_lib.measure,
    "search": search.measure,
    "step": step_lib.measure,
}
_JSON = flags.DEFINE_string("json", None, "Where to write the numbers.")


def main(argv: Sequence[str]) -> None:
    """Measures, prints, writes."""
    if len(argv) != 2 or argv[1] not in BENCHMARKS:
        raise app.UsageError(f"name one benchmark: {', '.join(BENCHMARKS)}")
    values = BENCHMARKS[argv[1]]()
    width = max(map(len, values))
    for name, value in values.items():
        print(f"{name:<{width}}  {value:>14,.5g}")
    if _JSON.value:
        pathlib.Path(_JSON.value).write_text(json.dumps(values, indent=2) + "\n")
        print(f"Wrote {_JSON.value}.")


if __name__ == "__main__":
    app.run(main)
