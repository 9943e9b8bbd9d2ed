r"""Draws the README's panel: what the demo's model finds, as a picture.

  python -m tools.docs.readme_panel --workdir=runs/emoji --data_dir=data \
      --out=docs/panel.png

Only the two designs that may be shown with credit are queries and gallery: Google's
Noto Emoji and Twitter's Twemoji. NOTICE credits both.
"""

import pathlib

from absl import app, flags
import ml_collections
import numpy as np
import tensorflow_datasets as tfds

from configs import emoji
from deeprank_jax import data, errors, relevance
from deeprank_jax.data import reader
from deeprank_jax.data.records import Records
from deeprank_jax.data.sources import tfds_dataset
from deeprank_jax.report import query_panel
from deeprank_jax.report import thumbnails as thumbnails_lib

_WORKDIR = flags.DEFINE_string("workdir", "runs/emoji", "Where the demo has run.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", "data", "Where TFDS keeps the prepared emoji."
)
_OUT = flags.DEFINE_string("out", "docs/panel.png", "The picture to write.")

_SHOWN_VENDORS = ("google", "twitter")
_NUM_QUERIES = 6
_IMAGE_SIZE = 72  # As the designs are stored.
_SEED = 0


def main(argv: list[str]) -> None:
    """Writes the picture."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    path = pathlib.Path(_WORKDIR.value) / "test_embeddings.npz"
    if not path.exists():
        raise SystemExit(
            f"error: {path} is missing; run `python -m deeprank_jax.main`."
        )
    with np.load(path) as saved:
        embeddings, ok = saved["embeddings"], saved["ok"]
    config = emoji.get_config()
    config.data.dir = _DATA_DIR.value
    try:
        records = data.create_records(config.data)["test"]
    except errors.DataError as error:
        raise SystemExit(f"error: {error}") from error
    if len(embeddings) != len(records):
        raise SystemExit(
            f"error: {path} holds {len(embeddings)} embeddings for {len(records)} "
            "records; run `python -m deeprank_jax.main` again."
        )
    where = ok & np.isin(_read_vendors(config.data.dir, len(records)), _SHOWN_VENDORS)
    _draw(config, records, embeddings, where)


def _draw(
    config: ml_collections.ConfigDict,
    records: Records,
    embeddings: np.ndarray,
    where: np.ndarray,
) -> None:
    graded = relevance.create_relevance(
        config.relevance.name, levels=config.relevance.levels
    )
    ranking = query_panel.rank_records(records, embeddings, where)
    chosen = query_panel.choose_queries(records, ranking, _NUM_QUERIES, seed=_SEED)
    rows = query_panel.create_rows(records, graded, ranking, chosen)
    grades = query_panel.create_grades(
        *query_panel.pairs_of_rows(records, rows), records.level_names
    )
    path = pathlib.Path(_OUT.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    with reader.ImageReader(records, image_size=_IMAGE_SIZE) as images:
        thumbnails = lambda indices: images.load(indices)[0]
        thumbnails_lib.write_panel(path, rows, grades, thumbnails)
    print(f"Wrote {path}.")


def _read_vendors(data_dir: str, num_records: int) -> np.ndarray:
    """Returns `[N]` strings, whose design each test record is."""
    builder = tfds_dataset.prepare("emoji", data_dir)
    source = builder.as_data_source(
        split="test", decoders={"image": tfds.decode.SkipDecoding()}
    )
    vendors = np.array(builder.info.features["vendor"].names)
    return vendors[[int(source[index]["vendor"]) for index in range(num_records)]]


if __name__ == "__main__":
    app.run(main)
