"""Model and dataset of the benchmarks that measure embeddings of labelled images."""

import argparse

from deeprank_jax import config as config_lib
from deeprank_jax import data
from deeprank_jax.data.records import Records
from deeprank_jax.distributed import backend
from deeprank_jax.export.pretrained import model_folder
from deeprank_jax.inference.model import Model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that `open_dataset` reads."""
    parser.add_argument(
        "--model",
        default="model",
        help="exported model or pretrained network (default: %(default)s)",
    )
    parser.add_argument(
        "--config", default="emoji", help="config of the dataset (default: %(default)s)"
    )
    parser.add_argument(
        "--data_dir", default="data", help="folder of the data (default: %(default)s)"
    )


def open_dataset(options: argparse.Namespace) -> tuple[Model, dict[str, Records]]:
    """Returns the model and the records of each split."""
    backend.configure_backend()
    overrides = [f"--config.data.dir={options.data_dir}"]
    config = config_lib.load_config(options.config, overrides)
    return Model(model_folder(options.model)), data.create_records(config.data)
