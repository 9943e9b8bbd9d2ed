"""Data sources by name: the kinds of `config.data.source`.

A source is a function of `directory`, i.e. `config.data.dir`, and of its options; it
returns the records of `"train"`, `"validation"` and `"test"`. A source that can do
without a directory gives that parameter a default.
"""

from deeprank_jax.data.records import Records
from deeprank_jax.data.sources import folder, manifest, tfds, tiles, unlabelled
from deeprank_jax.registry import Registry

SOURCES: Registry[dict[str, Records]] = Registry(
    "config.data.source",
    {
        "digits": tfds.create_digits_records,
        "emoji": tfds.create_emoji_records,
        "folder": folder.create_records,
        "manifest": manifest.create_records,
        "photo_views": tfds.create_photo_views_records,
        "tfds": tfds.create_records,
        "tiles": tiles.create_records,
        "unlabelled": unlabelled.create_records,
    },
)
register_source = SOURCES.register
