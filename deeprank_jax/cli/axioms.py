"""Measures how far distances and learned similarities are from being metrics.

Half of the pairs are neighbours, and so are the images of as many triples again. A
similarity counts as distance by its gap to the largest score of an image with itself.

For example:
  deeprank axioms photos --model=model --similarity=simnet.npz --out=axioms.html
"""

import argparse
from typing import TYPE_CHECKING

from deeprank_jax.cli import arguments, output
from deeprank_jax.cli.output import Result

if TYPE_CHECKING:
    from deeprank_jax.evaluation.axioms import Axioms
    from deeprank_jax.inference.model import Model
    from deeprank_jax.similarities import Similarity

_COLUMNS = ("", "mean", "d < 0", "d(a, a) != 0", "mean", "asymmetric", "mean",
            "triangle", "of neighbours", "worst excess")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_images(parser)
    parser.add_argument(
        "--similarity", metavar="FILE", type=arguments.PATH, action="append",
        default=[],
        help="similarity written by `deeprank train-similarity`; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--num", type=arguments.at_least(2), default=10_000,
        help="number of pairs, and of triples of either kind",
    )  # fmt: skip
    parser.add_argument(
        "--tolerance", type=arguments.distance, default=1e-5,
        help="difference that counts as rounding, as a share of the mean distance",
    )  # fmt: skip
    parser.add_argument("--seed", type=arguments.at_least(0), default=0,
                        help="seed of the draws")  # fmt: skip
    parser.add_argument(
        "--out", metavar="FILE", type=arguments.PATH,
        help="page with the table and its meaning to write, .html",
    )  # fmt: skip


def check(options: argparse.Namespace) -> None:
    """Checks the paths."""
    arguments.check_model(options.model)
    arguments.check_out(options.out, (".html",), [options.source])


def run(options: argparse.Namespace) -> Result:
    """Measures the axioms."""
    import dataclasses

    from deeprank_jax.evaluation.axioms import draw_axioms, measure_axioms
    from deeprank_jax.inference import bulk

    model, records = arguments.open_images(options)
    similarities = _open_similarities(options, model)
    embeddings, _ = bulk.embed_records(model, records)
    draws = draw_axioms(embeddings, options.num, seed=options.seed)
    axioms = {
        name: measure_axioms(
            similarity,
            draws,
            is_distance=similarity.is_distance,
            tolerance=options.tolerance,
        )
        for name, similarity in similarities.items()
    }
    facts = {
        "Images": f"{len(draws.embeddings):,} of {records.name}",
        "Model": f"{options.model} ({model.fingerprint})",
        "Draws": f"{options.num:,} pairs, half of them neighbours; {options.num:,} "
        f"triples of any images and {options.num:,} of neighbours; seed {options.seed}",
        "Tolerance": f"{options.tolerance:g} of the mean distance",
    }
    text = output.format_table(_COLUMNS, [_row(*x) for x in axioms.items()])
    if options.out:
        from deeprank_jax.report.axioms import write_axioms

        write_axioms(options.out, axioms, source=records.name, facts=facts)
        text += f"\n{output.wrote(options.out)}"
    values = {name: dataclasses.asdict(x) for name, x in axioms.items()}
    return Result({"images": len(draws.embeddings), "axioms": values}, text)


def _open_similarities(
    options: argparse.Namespace, model: "Model"
) -> "dict[str, Similarity]":
    """Returns the fixed distances and the similarities of the files, by title."""
    from deeprank_jax import similarities
    from deeprank_jax.similarities.stored import load_similarity

    opened: dict[str, Similarity] = {}
    for name in similarities.fixed_names():
        similarity = similarities.create_similarity(name)
        opened[similarity.describe()] = similarity
    for path in options.similarity:
        stored = load_similarity(path)
        stored.check_model(path, model.fingerprint, model.embedding_dim)
        opened[f"{stored.similarity.describe()} ({path})"] = stored.similarity
    return opened


def _row(name: str, axioms: "Axioms") -> tuple[str, ...]:
    from deeprank_jax.report.axioms import format_share

    number = "{:.3g}".format
    return (
        name,
        number(axioms.mean_distance),
        format_share(axioms.negative_share),
        format_share(axioms.self_share),
        number(axioms.mean_self),
        format_share(axioms.asymmetric_share),
        number(axioms.mean_asymmetry),
        format_share(axioms.triangle_share),
        format_share(axioms.near_triangle_share),
        number(axioms.worst_excess) if axioms.breaks_triangle else "none",
    )
