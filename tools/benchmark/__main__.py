"""Benchmarks of the project: `python -m tools.benchmark NAME --json=FILE`.

Prints a table and writes one flat JSON object.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
import json
import os
import pathlib

# One core: the benchmarks measure the work, not how well it is spread.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# After the limits of NumPy's threads.
from tools.benchmark import (  # noqa: E402
    codes,
    collection,
    embed,
    label_errors,
    metrics,
    out_of_domain,
    quality,
    search,
    similarity_maps,
    step,
)
from tools.benchmark import sampler as sampler_lib  # noqa: E402
from tools.benchmark import similarities as similarities_lib  # noqa: E402

Measure = Callable[[argparse.Namespace], dict[str, float]]
BENCHMARKS: Mapping[str, tuple[str | None, Measure]] = {
    "codes": (codes.__doc__, codes.measure),
    "collection": (collection.__doc__, lambda o: collection.measure(o.rows)),
    "embed": (embed.__doc__, lambda o: embed.measure(o.model, o.source)),
    "label_errors": (label_errors.__doc__, label_errors.measure),
    "metrics": (metrics.__doc__, lambda o: metrics.measure(o.torch_python)),
    "out_of_domain": (out_of_domain.__doc__, out_of_domain.measure),
    "quality": (quality.__doc__, quality.measure),
    "sampler": (sampler_lib.__doc__, lambda o: sampler_lib.measure()),
    "search": (search.__doc__, lambda o: search.measure()),
    "similarities": (similarities_lib.__doc__, similarities_lib.measure),
    "similarity_maps": (similarity_maps.__doc__, similarity_maps.measure),
    "step": (step.__doc__, lambda o: step.measure(o.torch_python)),
}
_ARGUMENTS: Mapping[str, Callable[[argparse.ArgumentParser], None]] = {
    "codes": codes.add_arguments,
    "collection": collection.add_arguments,
    "embed": embed.add_arguments,
    "label_errors": label_errors.add_arguments,
    "out_of_domain": out_of_domain.add_arguments,
    "quality": quality.add_arguments,
    "similarities": similarities_lib.add_arguments,
    "similarity_maps": similarity_maps.add_arguments,
}


def create_parser() -> argparse.ArgumentParser:
    """Creates the parser of the command line, with a subcommand per benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.benchmark",
        description="Measures speed, memory and exactness.",
        allow_abbrev=False,
    )
    names = parser.add_subparsers(dest="name", metavar="NAME", required=True)
    for name, (doc, _) in BENCHMARKS.items():
        summary = (doc or "").split("\n")[0]
        command = names.add_parser(
            name, help=summary, description=doc, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        command.add_argument(
            "--json", metavar="FILE", type=pathlib.Path, help="file for the numbers"
        )
        if name in _ARGUMENTS:
            _ARGUMENTS[name](command)
        if name in ("metrics", "step"):
            step.add_torch_python(command)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes."""
    options = create_parser().parse_args(arguments)
    values = BENCHMARKS[options.name][1](options)
    width = max(map(len, values))
    for name, value in values.items():
        print(f"{name:<{width}}  {value:>14,.5g}")
    if options.json:
        options.json.write_text(json.dumps(values, indent=2) + "\n")
        print(f"Wrote {options.json}.")


if __name__ == "__main__":
    main()
