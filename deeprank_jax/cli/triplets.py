r"""Draws triplets beforehand, to look at, to share or to train on.

Those that a run of the config would draw, step by step, or, with --evaluation, the
fixed ones that a split is judged by:

  python -m deeprank_jax.cli.triplets --config=configs/emoji.py --out=triplets.csv --num=1000

Or, as the well-known Keras sampler, for every image of a folder with a folder per class
N others of its class and, for each of these, M of other classes, none of them twice:

  python -m deeprank_jax.cli.triplets --input_directory=DIR --output_directory=OUT \
      --num_pos_images=N --num_neg_images=M

OUT/triplets.txt has a line `query,positive,negative` for each, with absolute paths,
quoted as in any CSV file where a name has a comma. Train on it by
`--config.sampler.name=file --config.sampler.file=OUT/triplets.txt`; that uses the rows
whose images are all in the training split, and `--split=train` draws only such.
"""

from collections.abc import Iterable, Sequence
import dataclasses
import pathlib
import tempfile

from absl import app, flags
import jax
from ml_collections import config_flags
import numpy as np
import tqdm

from deeprank_jax import config as config_lib
from deeprank_jax import data, relevance, sampling
from deeprank_jax.data.records import Records
from deeprank_jax.data.sources import folder
from deeprank_jax.evaluation import split as split_lib
from deeprank_jax.sampling import create, file_sampler, triplet_file
from deeprank_jax.training import experiment

_CONFIG = config_flags.DEFINE_config_file("config", help_string="The config file.")
_OUT = flags.DEFINE_string("out", "triplets.csv", "A .csv, .parquet or .txt file.")
_NUM = flags.DEFINE_integer("num", 100_000, "Of a config.", lower_bound=1)
_SPLIT = flags.DEFINE_enum("split", None, ["train", "validation", "test"], "Of which.")
_SEED = flags.DEFINE_integer("seed", None, "The config's if not given.", lower_bound=0)
_MODE = flags.DEFINE_enum("mode", None, sampling.MODES, "The config's if not given.")
_EVALUATION = flags.DEFINE_bool("evaluation", False, "The fixed triplets, of test.")
_INPUT = flags.DEFINE_string("input_directory", "", "One folder of images per class.")
_OUTPUT = flags.DEFINE_string("output_directory", ".", "Where triplets.txt is put.")
_POSITIVES = flags.DEFINE_integer("num_pos_images", 1, "Of an image.", lower_bound=1)
_NEGATIVES = flags.DEFINE_integer("num_neg_images", 1, "Of a positive.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """Draws and writes."""
    if len(argv) > 1 or (_CONFIG.value is None) == (not _INPUT.value):
        raise app.UsageError("give either --config and --out or --input_directory.")
    _refuse_unused()
    jax.config.update("jax_platforms", "cpu")  # A run may hold the accelerator.
    path = f"{_OUTPUT.value}/triplets.txt" if _INPUT.value else _OUT.value
    try:
        drawn = _draw_of_folder() if _INPUT.value else _draw_of_config()
        num = triplet_file.write_triplets(path, *drawn)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"Wrote {num:,} triplets to {path}.")


def _refuse_unused() -> None:
    """Refuses flags that would change nothing."""
    unused = [_OUT, _NUM, _MODE, _EVALUATION] if _INPUT.value else []
    if not _INPUT.value:
        unused = [_OUTPUT, _POSITIVES, _NEGATIVES]
        unused += [_NUM, _MODE] if _EVALUATION.value else []
    given = [f"--{flag.name}" for flag in unused if flag.present]
    if given:
        raise app.UsageError(f"{', '.join(given)} would change nothing here.")


def _draw_of_config() -> tuple[Records, Iterable[sampling.Triplets], int | None]:
    config = _CONFIG.value
    config.seed = config.seed if _SEED.value is None else _SEED.value
    config.sampler.mode = _MODE.value or config.sampler.mode
    config_lib.check_config(config)
    run_relevance = experiment.create_run_relevance(config)
    splits = relevance.attach(run_relevance, data.create_records(config.data))
    records = splits[_SPLIT.value or ("test" if _EVALUATION.value else "train")]
    if not _EVALUATION.value:
        sampler = create.create_sampler(config, records, run_relevance)
        steps = tqdm.trange(-(-_NUM.value // config.batch_size), unit=" batches")
        batches = (sampler.sample(step, config.batch_size) for step in steps)
        return records, batches, _NUM.value
    with tempfile.TemporaryDirectory() as directory:
        indices = split_lib.evaluation_triplets(
            config, records, run_relevance, pathlib.Path(directory, "drawn.csv")
        )
    level = config.triplets.category_level
    indices = np.zeros((0, 3), np.int64) if indices is None else indices
    fixed = file_sampler.create_triplets(indices, records, run_relevance, level)
    return records, [fixed], None


def _draw_of_folder() -> tuple[Records, Iterable[sampling.Triplets], None]:
    root = pathlib.Path(_INPUT.value).expanduser().absolute()
    splits = folder.create_records(str(root))
    chosen = [splits[name] for name in splits if _SPLIT.value in (None, name)]
    names = [str(root / part.describe(i)) for part in chosen for i in range(len(part))]
    labels = np.concatenate([part.labels for part in chosen])
    pool = dataclasses.replace(chosen[0], labels=labels, describe=names.__getitem__)
    batches = file_sampler.draw_for_every_record(
        pool, _POSITIVES.value, _NEGATIVES.value, seed=_SEED.value or 0
    )
    return pool, tqdm.tqdm(batches, total=len(pool), unit=" images"), None


if __name__ == "__main__":
    app.run(main)
