"""Image similarity by deep ranking, in JAX/Flax for GPU and TPU.

  model = deeprank_jax.load("models/photos")
  model.compare("a.jpg", "b.jpg")
  model.search("query.jpg", "photos", k=5)

Everything else is imported at first use, so that `import deeprank_jax` takes no time
and flags of XLA are set before JAX starts.
"""

import importlib
import os
import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str

    from deeprank_jax.data import register_source as register_source
    from deeprank_jax.descriptors import register_descriptor as register_descriptor
    from deeprank_jax.evaluation import register_evaluator as register_evaluator
    from deeprank_jax.experiments.evaluate import Evaluation as Evaluation
    from deeprank_jax.inference.index import Index as Index
    from deeprank_jax.inference.model import Model as Model
    from deeprank_jax.inference.results import Comparison as Comparison
    from deeprank_jax.inference.results import EmbeddedImages as EmbeddedImages
    from deeprank_jax.inference.results import Hit as Hit
    from deeprank_jax.inference.results import ImageGroup as ImageGroup
    from deeprank_jax.inference.results import ImageGroups as ImageGroups
    from deeprank_jax.inference.results import SearchResult as SearchResult
    from deeprank_jax.inference.similarity_maps import SimilarityMaps as SimilarityMaps
    from deeprank_jax.losses import register_loss as register_loss
    from deeprank_jax.losses import register_miner as register_miner
    from deeprank_jax.models import register_trunk as register_trunk
    from deeprank_jax.relevance import register_relevance as register_relevance
    from deeprank_jax.sampling.create import register_sampler as register_sampler
    from deeprank_jax.training.tasks import register_task as register_task
    from deeprank_jax.training.train import TrainingResult as TrainingResult
    from deeprank_jax.training.train import train as train

_LAZY = {
    "Comparison": "deeprank_jax.inference.results:Comparison",
    "EmbeddedImages": "deeprank_jax.inference.results:EmbeddedImages",
    "Evaluation": "deeprank_jax.experiments.evaluate:Evaluation",
    "Hit": "deeprank_jax.inference.results:Hit",
    "ImageGroup": "deeprank_jax.inference.results:ImageGroup",
    "ImageGroups": "deeprank_jax.inference.results:ImageGroups",
    "Index": "deeprank_jax.inference.index:Index",
    "Model": "deeprank_jax.inference.model:Model",
    "SearchResult": "deeprank_jax.inference.results:SearchResult",
    "SimilarityMaps": "deeprank_jax.inference.similarity_maps:SimilarityMaps",
    "TrainingResult": "deeprank_jax.training.train:TrainingResult",
    "register_descriptor": "deeprank_jax.descriptors:register_descriptor",
    "register_evaluator": "deeprank_jax.evaluation:register_evaluator",
    "register_loss": "deeprank_jax.losses:register_loss",
    "register_miner": "deeprank_jax.losses:register_miner",
    "register_relevance": "deeprank_jax.relevance:register_relevance",
    "register_sampler": "deeprank_jax.sampling.create:register_sampler",
    "register_source": "deeprank_jax.data:register_source",
    "register_task": "deeprank_jax.training.tasks:register_task",
    "register_trunk": "deeprank_jax.models:register_trunk",
    "train": "deeprank_jax.training.train:train",
}

__all__ = [
    "Comparison",
    "EmbeddedImages",
    "Evaluation",
    "Hit",
    "ImageGroup",
    "ImageGroups",
    "Index",
    "Model",
    "SearchResult",
    "SimilarityMaps",
    "TrainingResult",
    "__version__",
    "evaluate",
    "load",
    "register_descriptor",
    "register_evaluator",
    "register_loss",
    "register_miner",
    "register_relevance",
    "register_sampler",
    "register_source",
    "register_task",
    "register_trunk",
    "train",
]


def load(path: str | os.PathLike[str]) -> "Model":
    """Reads an exported model, or a pretrained network by its name.

    Args:
      path: Folder written by `deeprank export`; or `"efficientnet_lite0"`, 1 or 2, a
        network trained on ImageNet, which the first use exports to the user's cache.

    Raises:
      ArtifactError: The folder is not an exported model, or a file is damaged.
      ConfigError: The package with the network's weights is not installed.
    """
    _configure()
    from deeprank_jax.inference import pretrained
    from deeprank_jax.inference.model import Model

    if pretrained.is_pretrained(path):
        pretrained.check_export_is_installed()
        from deeprank_jax import export

        path = export.model_folder(path)
    return Model(path)


def evaluate(
    model: "Model | str | os.PathLike[str]",
    images: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    split: str = "test",
    data_dir: str = "data",
    label_feature: str = "",
) -> "Evaluation":
    """Measures a model and its baselines on images with labels.

    Every image is a query, and all others are its gallery.

    Args:
      model: Exported model, its folder, the folder of a run, or the name of a
        pretrained network, as in `load`.
      images: Folder with a folder per class, `.csv` or `.parquet` list with labels, or
        `"tfds:NAME/SPLIT"`; None for a split of the dataset of the training.
      out: Folder of the report; None for no report.
      split: Split of the dataset of the training.
      data_dir: Folder of TFDS datasets.
      label_feature: Feature or column with the labels.

    Raises:
      ArtifactError: The folder is not an exported model, or a file is damaged.
      DataError: There are no such images, or their labels cannot be used.
    """
    _configure()
    from deeprank_jax.experiments import evaluate as evaluate_lib
    from deeprank_jax.inference import pretrained
    from deeprank_jax.inference.model import Model
    from deeprank_jax.training.workdir import Workdir

    if isinstance(model, Model):
        folder = model.artifact.path
    elif pretrained.is_pretrained(model):
        folder = load(model).artifact.path
    else:
        folder = pathlib.Path(model)
    # Of the two, only a run has checkpoints.
    is_run = Workdir(folder.expanduser()).checkpoints.is_dir()
    load_network = evaluate_lib.load_run if is_run else evaluate_lib.load_model
    network = load_network(folder)
    if images is None:
        dataset = evaluate_lib.open_split(network.config, split)
    else:
        dataset = evaluate_lib.open_images(
            images, network, data_dir=data_dir, label_feature=label_feature
        )
    path = None if out is None else pathlib.Path(out)
    return evaluate_lib.evaluate(network, dataset, path)


def _configure() -> None:
    """Sets the flags of XLA, unless JAX has started already."""
    from deeprank_jax.distributed import backend

    backend.configure_backend()


def __getattr__(name: str) -> object:
    """Imports a public name at its first use."""
    if name == "__version__":
        from deeprank_jax import version

        return version.number()
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _configure()
    module, _, attribute = _LAZY[name].partition(":")
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Returns the public names."""
    return sorted(__all__)
