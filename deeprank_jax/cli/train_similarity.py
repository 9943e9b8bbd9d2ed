r"""Trains a similarity of two embeddings.

Kinds are linear, bilinear (OASIS), projected_cosine and simnet, which learn from images
with labels, and out_of_domain, which takes images without labels of other things than
those that are searched for. Then search with --rerank=FILE.

For example:
  deeprank train-similarity photos --model=model --kind=simnet --out=simnet.npz \
      --option=width=1024
"""

import argparse
from typing import TYPE_CHECKING

from deeprank_jax.cli import arguments, output
from deeprank_jax.cli.output import Result
from deeprank_jax.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    arguments.add_images(parser, or_table=True)
    parser.add_argument(
        "--kind", required=True, help="kind of similarity, see docs/similarities.md"
    )
    parser.add_argument(
        "--out", metavar="FILE", type=arguments.PATH, required=True,
        help="similarity to write, .npz",
    )  # fmt: skip
    parser.add_argument(
        "--option", metavar="NAME=VALUE", type=_option, action="append", default=[],
        help="option of the kind, e.g. width=1024; may be repeated",
    )  # fmt: skip
    parser.add_argument("--seed", type=arguments.at_least(0), default=0,
                        help="seed of parameters and pairs")  # fmt: skip


def check(options: argparse.Namespace) -> None:
    """Checks the paths."""
    arguments.check_model(options.model)
    arguments.check_out(options.out, (".npz",), [options.source])
    if options.model is None and not options.source.endswith(".parquet"):
        raise ConfigError(
            f"{options.source} is no table of embeddings, .parquet: give the images' "
            "--model, or a table written by `deeprank embed`."
        )


def run(options: argparse.Namespace) -> Result:
    """Trains the similarity and writes it."""
    from deeprank_jax import similarities
    from deeprank_jax.similarities.stored import StoredSimilarity, save_similarity

    chosen_options = dict(options.option)
    # First, as it takes a moment, and to embed may take hours.
    similarity = similarities.create_learned(options.kind, chosen_options)
    embeddings, labels, model = _open_embeddings(options, similarity.needs_labels)
    metrics = similarities.train(similarity, embeddings, labels, seed=options.seed)
    stored = StoredSimilarity(
        similarity=similarity,
        kind=options.kind,
        options=chosen_options,
        model=model,
        dim=embeddings.shape[1],
        seed=options.seed,
        metrics=metrics,
    )
    save_similarity(options.out, stored)
    results = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    text = (
        f"Trained {similarity.describe()} on {len(embeddings):,} embeddings"
        + (f": {results}" if results else "")
        + f".\n{output.wrote(options.out)}"
    )
    values = {
        "out": options.out,
        "kind": options.kind,
        "options": chosen_options,
        "model": model,
        "embeddings": len(embeddings),
        "embedding_dim": stored.dim,
        "metrics": metrics,
    }
    return Result(values, text)


def _open_embeddings(
    options: argparse.Namespace, needs_labels: bool
) -> "tuple[np.ndarray, np.ndarray, str]":
    """Returns embeddings `[N, D]`, labels `[N]` and the model's fingerprint."""
    import numpy as np

    if options.model is None:
        from deeprank_jax.inference.embedding_table import read_table

        _, labels, embeddings, fingerprint = read_table(options.source)
        return embeddings, np.array(labels), fingerprint
    from deeprank_jax.inference import bulk
    from deeprank_jax.similarities.pairs import LabelledPairs

    model, records = arguments.open_images(options)
    if needs_labels:
        # Whether there are pairs is known before all images are embedded.
        LabelledPairs(np.array([records.label_name(i) for i in range(len(records))]))
    embeddings, indices = bulk.embed_records(model, records)
    labels = [records.label_name(int(i)) for i in indices]
    return embeddings, np.array(labels), model.fingerprint


def _option(text: str) -> tuple[str, object]:
    """Parses `NAME=VALUE`, the value as a number or truth value if it is one."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    if value in ("True", "False"):
        return name, value == "True"
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value
