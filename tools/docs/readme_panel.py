r"""The README's panel: results of searches with a run on the emoji, as a picture.

  python -m tools.docs.readme_panel --workdir=runs/emoji_lite0 --data_dir=data \
      --out=docs/panel.png

Only the two designs that may be shown with credit are queries and gallery: Google's
Noto Emoji and Twitter's Twemoji. NOTICE credits both. So a query has one right answer.

The queries are drawn at random from those that show something, evenly over the
categories: the other design is found first, and at least two more of the eight nearest
images are of the subcategory. The tool prints a caption that says so, with the share of
such queries; it belongs below the picture.
"""

import argparse
import dataclasses
import pathlib

import ml_collections
import numpy as np
import tensorflow_datasets as tfds

from deeprank_jax import data, errors, relevance
from deeprank_jax.configs import emoji
from deeprank_jax.data import reader
from deeprank_jax.data.records import Records
from deeprank_jax.data.sources import tfds_dataset
from deeprank_jax.evaluation.rankings import Ranking, rank_records
from deeprank_jax.report import query_panel
from deeprank_jax.report import thumbnails as thumbnails_lib

_SHOWN_VENDORS = ("google", "twitter")
_NUM_QUERIES = 6
# Images of the subcategory beside the other design that a shown query finds.
_NUM_RELATIVES = 2
_IMAGE_SIZE = 72  # As the designs are stored.
_SEED = 0


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs.readme_panel")
    for name, default, text in (
        ("--workdir", "runs/emoji", "folder of a run on the emoji, the best there is"),
        ("--data_dir", "data", "folder in which TFDS keeps the prepared emoji"),
        ("--out", "docs/panel.png", "picture to write"),
    ):
        parser.add_argument(
            name,
            type=pathlib.Path,
            default=pathlib.Path(default),
            help=f"{text} (default: %(default)s)",
        )
    options = parser.parse_args()
    try:
        caption = draw_panel(options.workdir, options.data_dir, options.out)
    except errors.UserError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"Wrote {options.out}, with the caption\n\n{caption}")


def draw_panel(workdir: pathlib.Path, data_dir: pathlib.Path, out: pathlib.Path) -> str:
    """Writes the picture, and returns its caption.

    Args:
      workdir: Folder of a run on the emoji.
      data_dir: Folder in which TFDS keeps the prepared emoji.
      out: Path of the picture.

    Raises:
      DataError: The run or the dataset is missing, they do not fit each other, or the
        run finds too few emoji to show.
    """
    path = workdir / "test_embeddings.npz"
    if not path.exists():
        raise errors.DataError(f"{path} is missing; run `deeprank train` first.")
    with np.load(path) as saved:
        embeddings, ok = saved["embeddings"], saved["ok"]
    config = emoji.get_config()
    config.data.dir = str(data_dir)
    records = data.create_records(config.data)["test"]
    if len(embeddings) != len(records):
        raise errors.DataError(
            f"{path} holds {len(embeddings)} embeddings for {len(records)} "
            "records; run `deeprank train` again."
        )
    where = ok & np.isin(_read_vendors(config.data.dir, len(records)), _SHOWN_VENDORS)
    return _draw(config, records, embeddings, where, out)


def _draw(
    config: ml_collections.ConfigDict,
    records: Records,
    embeddings: np.ndarray,
    where: np.ndarray,
    path: pathlib.Path,
) -> str:
    graded = relevance.create_relevance(
        config.relevance.name, levels=config.relevance.levels
    )
    ranking = rank_records(records.labels[:, -1], embeddings, where)
    finds, shows = _find_telling(records, ranking)
    if shows.sum() < _NUM_QUERIES:
        raise errors.DataError(
            f"{int(shows.sum())} of {len(shows):,} queries find their other design and "
            f"two relatives, too few for {_NUM_QUERIES} rows: give the folder of a run "
            "that was trained for longer."
        )
    # A query without an average precision is not chosen.
    precision = np.where(shows, ranking.average_precision, np.nan)
    examples = query_panel.choose_queries(
        records,
        dataclasses.replace(ranking, average_precision=precision),
        _NUM_QUERIES,
        seed=_SEED,
    )
    rows = query_panel.create_rows(records, graded, ranking, examples)
    grades = query_panel.create_grades(
        *query_panel.pairs_of_rows(records, rows), records.level_titles
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with reader.ImageReader(records, image_size=_IMAGE_SIZE) as images:
        thumbnails = lambda indices: images.load(indices)[0]
        thumbnails_lib.write_panel(path, rows, grades, thumbnails)
    return (
        "Six emoji that the model was not trained on, each with its nearest images, "
        f"drawn at random from the {shows.mean():.0%} of {len(shows):,} queries that "
        "find their other design first and at least two more images of their "
        f"subcategory; {finds.mean():.0%} of all find their other design first."
    )


def _find_telling(records: Records, ranking: Ranking) -> tuple[np.ndarray, np.ndarray]:
    """Returns which queries find their other design first, and which show more.

    Args:
      records: Records of the split.
      ranking: Nearest neighbours of the queries.

    Returns:
      `[Q]` bool each, the second within the first.
    """
    labels = records.labels
    depth = query_panel.shared_depth(
        labels[ranking.queries][:, None], labels[ranking.neighbors]
    )
    finest = labels.shape[1]
    finds = depth[:, 0] == finest
    relatives = np.count_nonzero(depth[:, 1:] == finest - 1, axis=1)
    return finds, finds & (relatives >= _NUM_RELATIVES)


def _read_vendors(data_dir: str, num_records: int) -> np.ndarray:
    """Returns the vendors `[N]` of the test records' designs, as strings."""
    builder = tfds_dataset.prepare("emoji", data_dir)
    source = builder.as_data_source(
        split="test", decoders={"image": tfds.decode.SkipDecoding()}
    )
    vendors = np.array(builder.info.features["vendor"].names)
    return vendors[[int(source[index]["vendor"]) for index in range(num_records)]]


if __name__ == "__main__":
    main()
