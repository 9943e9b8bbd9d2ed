"""Finds the images of an index that are nearest to one image.

For example:
  deeprank search query.jpg --index=photos.index --k=20 --out=found.html
"""

import argparse
from typing import TYPE_CHECKING

from deeprank_jax.cli import arguments, output
from deeprank_jax.cli.output import Result
from deeprank_jax.errors import DataError

if TYPE_CHECKING:
    from deeprank_jax.inference.index import Index
    from deeprank_jax.inference.results import SearchResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "image", metavar="IMAGE", type=arguments.PATH, help="path of an image"
    )
    parser.add_argument(
        "--index", metavar="DIR", type=arguments.PATH, required=True,
        help="folder of an index written by `deeprank index`",
    )  # fmt: skip
    arguments.add_model(parser, required=False)
    parser.add_argument(
        "--k", type=arguments.at_least(1), default=10, help="number of images to find"
    )
    parser.add_argument(
        "--label", action="append",
        help="search only images with this label; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--rerank", metavar="FILE", type=arguments.PATH,
        help="similarity written by `deeprank train-similarity`, by which the nearest "
        "images are put in order",
    )  # fmt: skip
    parser.add_argument(
        "--num_reranked", type=arguments.at_least(1), default=100,
        help="number of images that --rerank puts in order",
    )  # fmt: skip
    arguments.add_include_query(parser)
    arguments.add_picture(parser)
    arguments.add_heat_map(parser)


def check(options: argparse.Namespace) -> None:
    """Checks the options and paths."""
    arguments.check_heat_map(options)
    arguments.check_index(options.index)
    arguments.check_model(options.model)
    arguments.check_out(options.out, arguments.PICTURES, [options.image])


def run(options: argparse.Namespace) -> Result:
    """Searches the index."""
    from deeprank_jax.inference.index import Index
    from deeprank_jax.logs import escaped
    from deeprank_jax.registry import did_you_mean, list_names

    index = Index.open(options.index, options.model)
    for label in options.label or ():
        if label not in (names := sorted(index.label_names())):
            hint = did_you_mean(label, iter(names)) or (
                f"; its labels are {list_names(names)}"
                if names
                else "; none of its images has a label"
            )
            raise DataError(
                f"{options.index} holds no image with the label {label!r}{hint}."
            )
    result, scores, note = _search(index, options)
    summary = ", ".join(
        f"{escaped(label) or 'no label'} {share:.0%}"
        for label, share in result.votes[:5]
    )
    names, rows = output.hit_rows(result.hits)
    hits = output.hit_values(result.hits)
    if scores:
        names = ("rank", "similarity", *names[1:])
        rows = [
            (row[0], f"{score:.4f}", *row[1:])
            for row, score in zip(rows, scores, strict=True)
        ]
        hits = [x | {"similarity": y} for x, y in zip(hits, scores, strict=True)]
    lines = [output.format_table(names, rows), f"Labels by vote: {summary or 'none'}."]
    text = "\n".join([*lines, *note, *output.hit_notes(result)])
    if options.out:
        from deeprank_jax.cli import sheets

        kind = "most similar by --rerank" if options.rerank else "nearest"
        heading = f"{kind}{{legend}}; labels by vote: {summary or 'none'}"
        sheets.write_hits(
            options.out,
            f"Nearest to {options.image}",
            options.image,
            result,
            heading=heading,
            read=index.create_reader(),
            heat_map_model=index.model if options.heat_map else None,
        )
        text += f"\n{output.wrote(options.out)}"
    values = {
        "image": options.image,
        "hits": hits,
        "threshold": result.threshold,
        "left_out": result.left_out,
        "is_unfamiliar": result.is_unfamiliar,
        "votes": [{"label": label, "share": share} for label, share in result.votes],
    }
    return Result(values, text)


def _search(
    index: "Index", options: argparse.Namespace
) -> "tuple[SearchResult, tuple[float, ...], list[str]]":
    """Returns hits, their similarities with --rerank, and a sentence on these."""
    common = {"labels": options.label, "include_query": options.include_query}
    if not options.rerank:
        return index.search(options.image, options.k, **common), (), []
    from deeprank_jax.inference.reranking import search_reranked
    from deeprank_jax.similarities.stored import load_similarity

    stored = load_similarity(options.rerank)
    model = index.model
    stored.check_model(options.rerank, model.fingerprint, model.embedding_dim)
    reranked = search_reranked(
        index,
        options.image,
        stored.similarity,
        options.k,
        num=options.num_reranked,
        **common,
    )
    note = (
        f"Re-ranked: the nearest {reranked.num_reranked:,} by {options.rerank} "
        f"({stored.similarity.describe()}); verdicts and votes are by distance."
    )
    return reranked.result, reranked.scores, [note]
