"""The page on the axioms of a metric: one table, and a paragraph on each axiom."""

from collections.abc import Mapping
import os
import pathlib

from deeprank_jax import files
from deeprank_jax.evaluation.axioms import Axioms
from deeprank_jax.report import templates
from deeprank_jax.report.number_format import format_number

# Title of each axiom, its formula, and the practice where it fails.
AXIOMS = (
    (
        "No negative distance",
        "d(a, b) \N{GREATER-THAN OR EQUAL TO} 0",
        "Where it fails, some image is scored as more similar than any image is to "
        "itself. A search for an exact copy may then return another image first, and "
        "thresholds that assume distances of 0 or more, or take their square root, do "
        "not work.",
    ),
    (
        "Zero to itself",
        "d(a, a) = 0",
        "Where it fails, an image is not at distance 0 from itself, so copies cannot "
        "be found by a small distance: the same limit is strict for some images and "
        "loose for others. The size says by how much a limit would have to give way.",
    ),
    (
        "Symmetry",
        "d(a, b) = d(b, a)",
        "Where it fails, the answer depends on which image is the query. Clusters and "
        "lists of copies, which ask about a pair once, then depend on the order of the "
        "images; the mean of both orders repairs it at twice the price.",
    ),
    (
        "Triangle inequality",
        "d(a, c) \N{LESS-THAN OR EQUAL TO} d(a, b) + d(b, c)",
        "Where it fails, two images can both be near a third and still be far from "
        "each other. Search structures that skip images by this inequality (ball "
        "trees, vantage points) miss neighbours; exact search and re-ranking of a list "
        "do not rely on it. It fails first among neighbours.",
    ),
)


def write_axioms(
    path: str | os.PathLike[str],
    axioms: Mapping[str, Axioms],
    *,
    source: str,
    facts: Mapping[str, str],
) -> None:
    """Writes the page, one self-contained HTML file.

    Args:
      path: Path of the file.
      axioms: Failures by title of the similarity.
      source: Name of the images.
      facts: Facts about the measurement by title.

    Raises:
      WriteError: The file cannot be written.
    """
    cells = [[_cells(x)[row] for x in axioms.values()] for row in range(len(AXIOMS))]
    page = templates.render(
        pathlib.Path(__file__).with_name("axioms.html"),
        title=f"Axioms of a metric on {source}",
        systems=list(axioms),
        rows=[
            {"title": title, "formula": formula, "about": about, "cells": row}
            for (title, formula, about), row in zip(AXIOMS, cells, strict=True)
        ],
        scales=[format_number(x.mean_distance) for x in axioms.values()],
        facts=facts,
    )
    path = pathlib.Path(path)
    files.create_folder(path.parent)
    with files.replacing(path) as file:
        file.write(page.encode("utf-8", "backslashreplace"))


def _cells(axioms: Axioms) -> list[tuple[str, ...]]:
    """Returns the share of failures and lines on it, axiom by axiom."""
    if axioms.breaks_triangle:
        worst = f"worst excess {format_number(axioms.worst_excess)}"
    else:
        worst = "no excess"
    return [
        (format_share(axioms.negative_share),),
        (format_share(axioms.self_share), f"mean {format_number(axioms.mean_self)}"),
        (
            format_share(axioms.asymmetric_share),
            f"mean {format_number(axioms.mean_asymmetry)}",
        ),
        (
            format_share(axioms.triangle_share),
            f"{format_share(axioms.near_triangle_share)} of neighbours",
            worst,
        ),
    ]


def format_share(share: float) -> str:
    """Returns a share in percent; 0 only if nothing fails.

    Args:
      share: Share in [0, 1].
    """
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.1f} %" if share else "0 %"
