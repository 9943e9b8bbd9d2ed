"""Evaluation of an exported model or a run on images that it was not trained on."""

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import os
import pathlib

from absl import logging
import jax
import ml_collections
import numpy as np

from deeprank_jax import config as config_lib
from deeprank_jax import files
from deeprank_jax.data import create_records
from deeprank_jax.data.records import Records
from deeprank_jax.data.sources import manifest
from deeprank_jax.errors import CheckpointError, ConfigError, DataError
from deeprank_jax.evaluation.compare import (
    SystemComparison,
    compare_with_baselines,
    describe_few_queries,
)
from deeprank_jax.evaluation.split import SplitEvaluation
from deeprank_jax.experiments.evaluation_inputs import Dataset, EmbedFn, Network
from deeprank_jax.experiments.evaluation_report import write_evaluation
from deeprank_jax.export import network as export_network
from deeprank_jax.files import locks
from deeprank_jax.inference import sources
from deeprank_jax.inference.model import Model
from deeprank_jax.relevance import attach, create_relevance
from deeprank_jax.training import checkpoints, experiment, tasks, whitening
from deeprank_jax.training import network as network_lib
from deeprank_jax.training import step as step_lib
from deeprank_jax.training.network import trunk_names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics of a network and its baselines.

    Attributes:
      network: Title of the network.
      dataset: Title of the dataset.
      split: Name of the split.
      num_images: Number of images measured.
      results: `{evaluator: {metric: {system: value}}}`.
      intervals: Same keys, with "low" and "high" in place of a value; of baselines also
        "model_better_by", `[value, low, high]`.
      report: Path of the report; None if it was not written.
    """

    network: str
    dataset: str
    split: str
    num_images: int
    results: Mapping[str, Mapping[str, Mapping[str, float]]]
    intervals: Mapping[str, Mapping[str, Mapping[str, Mapping[str, object]]]]
    report: pathlib.Path | None


def load_model(path: str | pathlib.Path) -> Network:
    """Loads an exported model.

    Args:
      path: Folder written by `deeprank export`.

    Raises:
      ArtifactError: The folder is not an exported model, or is damaged.
    """
    model = Model(path)
    info = model.artifact.info
    config = model.config
    if config.plugins:
        logging.warning(
            "%s names the plugins %s, which are not run, since a model may come from "
            "elsewhere; evaluate its run, by --workdir, to have them.",
            path,
            ", ".join(map(str, config.plugins)),
        )
    return Network(
        name=str(info.get("name", pathlib.Path(path).name)),
        description={
            "Model": f"{path}, fingerprint {model.fingerprint}",
            "Network": f"{info['network']}, {model.embedding_dim} dimensions",
        },
        config=config,
        embed=model.embed_prepared,
    )


def load_run(workdir: str | pathlib.Path) -> Network:
    """Loads a run's best checkpoint, and its network before training.

    Args:
      workdir: Folder of the run; its data are not needed.

    Raises:
      ConfigError: The folder is not a run.
      CheckpointError: It has no checkpoint, or a damaged one.
    """
    workdir = pathlib.Path(workdir).expanduser()
    config = config_lib.read_run_config(workdir)
    saved = whitening.with_whitening(checkpoints.read_network(workdir))
    embed, weights = export_network.create_embed(
        config, saved.arrays, source=str(saved.where)
    )
    on_device, compiled = jax.device_put(weights), jax.jit(embed)
    return Network(
        name=workdir.resolve().name,
        description={
            "Run": f"{workdir}, step {saved.where.name}",
            "Network": " beside ".join(trunk_names(config)),
        },
        config=config,
        embed=_in_batches(lambda images: compiled(on_device, images)),
        before=_create_before(config),
    )


def _create_before(config: ml_collections.ConfigDict) -> dict[str, EmbedFn]:
    """Returns the network before training, and its trunk if that was trained before."""
    task = tasks.create_task(config, experiment.create_run_relevance(config))
    try:
        graphdef, _, state = network_lib.create_network(config, task.create_model)
    except (CheckpointError, ConfigError) as error:
        logging.warning(
            "The untrained network is left out, because its first weights are gone. %s",
            error,
        )
        return {}
    embed = jax.jit(step_lib.make_embed_step(graphdef))
    features = jax.jit(step_lib.make_feature_step(graphdef))
    before = {"untrained": _in_batches(lambda images: embed(state, images))}
    if config.init_from or config.model.weights:
        before["frozen"] = _in_batches(lambda images: features(state, images))
    return before


def _in_batches(embed: Callable[[np.ndarray], jax.Array]) -> EmbedFn:
    """Returns a function that pads the last batch, so that one program is compiled."""
    size = 0

    def padded(images: np.ndarray) -> np.ndarray:
        nonlocal size
        size = max(size, len(images))
        padding = ((0, size - len(images)), *((0, 0),) * 3)
        return np.asarray(embed(np.pad(images, padding)))[: len(images)]

    return padded


def open_images(
    source: str | os.PathLike[str],
    network: Network,
    *,
    data_dir: str = "data",
    label_feature: str = "",
) -> Dataset:
    """Opens images with a label each; those of one label are relevant to each other.

    Args:
      source: A folder with a folder per class; a `.csv` or `.parquet` file; or
        `tfds:NAME/SPLIT`.
      network: Network to evaluate, whose config has the evaluators.
      data_dir: Folder in which TFDS keeps its datasets.
      label_feature: Feature or column with the labels.

    Raises:
      DataError: There is no such source, or its labels cannot be used.
    """
    source = os.fspath(source)
    records = sources.open_source(
        source,
        data_dir=data_dir,
        like=network.config.data,
        label_feature=label_feature,
    )
    records = _labelled(source, records)
    config = network.config.copy_and_resolve_references()
    with config.unlocked():
        config.relevance = dict(name="same_class")
        config.evaluation.gains = ()
        config.triplets.category_level = None
        # Of the run's own images.
        for name in ("rated_triplets", "pairs", "shared_attributes"):
            if name in config.evaluation.evaluators:
                del config.evaluation.evaluators[name]
    return Dataset(
        name=files.printable(source),
        split=source.rpartition("/")[2]
        if source.startswith(sources.PREFIX)
        else "images",
        records=records,
        relevance=create_relevance("same_class"),
        config=config,
    )


def open_split(config: ml_collections.ConfigDict, split: str = "test") -> Dataset:
    """Opens a split of a config's dataset, with the config's relevance and evaluators.

    Args:
      config: Config of the dataset.
      split: Name of the split.

    Raises:
      DataError: The dataset cannot be used, or has no such split.
    """
    relevance = experiment.create_run_relevance(config)
    splits = create_records(config.data)
    if split not in splits:
        raise DataError(f"--split={split} does not exist; give {', '.join(splits)}.")
    config_lib.check_levels(config, splits[split].level_titles)
    splits = attach(relevance, splits)
    if "relevant_retrieval" not in config.evaluation.evaluators:
        labels = splits[split].labels[:, -1]
        _check_classes(f"the {split} split", labels, "another --split")
    return Dataset(
        name=f"{config.data.source.name} ({split})",
        split=split,
        records=splits[split],
        relevance=relevance,
        config=config,
        others=tuple(part for name, part in splits.items() if name != split),
    )


def _labelled(source: str, records: Records) -> Records:
    """Returns the records that have a label.

    Raises:
      DataError: There are too few of them; the message names the columns to choose
        from.
    """
    labels = np.array([records.label_name(i) for i in range(len(records))])
    labelled = np.flatnonzero(labels != "")
    remedy = _remedy(source)
    name = files.printable(source)
    if not len(labelled):
        raise DataError(f"{name}: no image has a label; {remedy}.")
    _check_classes(name, records.labels[labelled, -1], remedy)
    if len(labelled) < len(records):
        logging.warning(
            "%s: %d images without a label are left out.",
            name,
            len(labels) - len(labelled),
        )
    return dataclasses.replace(
        records,
        labels=records.labels[labelled],
        attributes=records.labels[labelled],
        columns={},
        read=lambda index: records.read(int(labelled[index])),
        describe=lambda index: records.describe(int(labelled[index])),
    )


def _check_classes(name: str, classes: np.ndarray, remedy: str) -> None:
    """Checks that a query can have a right and a wrong answer.

    Raises:
      DataError: All images are of one class, or no two are.
    """
    _, counts = np.unique(classes, return_counts=True)
    if len(counts) < 2:
        raise DataError(
            f"{name}: all {len(classes):,} images have the same label, so that no "
            f"answer can be wrong; {remedy}."
        )
    if counts.max() < 2:
        raise DataError(
            f"{name}: every one of the {len(classes):,} images has a label of its own, "
            f"so that no answer can be right; {remedy}."
        )


def _remedy(source: str) -> str:
    """Returns the advice for a source whose labels cannot be used."""
    path = pathlib.Path(source).expanduser()
    if source.startswith(sources.PREFIX):
        return "give another feature by --label_feature"
    if path.is_dir():
        return "put the images of each class into a folder of its own"
    if path.suffix == ".txt":
        return 'give a .csv with the columns "path" and "label"'
    columns = [name for name in manifest.read_table(path) if name and name != "path"]
    if not columns:
        return 'add a column "label"'
    return f"give --label_feature=COLUMN, one of {', '.join(columns)}"


def evaluate(
    network: Network,
    dataset: Dataset,
    out: str | pathlib.Path | None = None,
    *,
    command: str = "",
) -> Evaluation:
    """Measures a network and its baselines, and writes a report.

    Every image is a query, and all others are its gallery, as in the final numbers of a
    run.

    Args:
      network: Network to measure.
      dataset: Images to measure it on.
      out: Folder for `report/index.html`, `results.json` and `intervals.json`; None
        writes nothing.
      command: Command line, for the report.

    Raises:
      DataError: No image can be read.
      LockedError: Another process writes the folder.
      WriteError: The folder cannot be written.
    """
    config = dataset.config.copy_and_resolve_references()
    with config.unlocked():
        for key in ("image_size", "fit", "max_pixels"):
            config.data[key] = network.config.data[key]
    with contextlib.ExitStack() as stack:
        folder = None
        if out is not None:
            folder = files.create_folder(pathlib.Path(out).expanduser())
            stack.enter_context(locks.inside(folder, "--out"))
        embeddings, ok, comparison = _measure(network, dataset, config)
        page = None
        if folder is not None:
            page = write_evaluation(
                folder, network, dataset, config, (embeddings, ok), comparison, command
            )
    return Evaluation(
        network=network.name,
        dataset=dataset.name,
        split=dataset.split,
        num_images=int(ok.sum()),
        results=comparison.results,
        intervals=comparison.intervals,
        report=page,
    )


def _measure(
    network: Network, dataset: Dataset, config: ml_collections.ConfigDict
) -> tuple[np.ndarray, np.ndarray, SystemComparison]:
    """Returns embeddings `[N, D]`, the mask `[N]` of those images, and all metrics."""
    from deeprank_jax.sampling.pair_file import read_pairs  # It needs pyarrow.

    with (
        experiment.create_reader(config, dataset.records) as reader,
        files.scratch_folder() as scratch,
    ):
        split = SplitEvaluation(
            config,
            dataset.split,
            dataset.records,
            reader,
            dataset.relevance,
            scratch,
            read_pairs=lambda file: read_pairs(
                file, dataset.records, others=dataset.others, root=config.data.dir
            ),
        )
        embeddings, ok = split.embed(network.embed, dataset.split, must_be_finite=True)
        if not ok.any():
            raise DataError(
                f"{dataset.name}: no image can be read, among them "
                f"{dataset.records.describe(0)}; give another source."
            )
        comparison = compare_with_baselines(
            split, (embeddings, ok), network.before, network.embed
        )
    if warning := describe_few_queries(comparison.results, comparison.intervals):
        logging.warning("%s: %s.", dataset.split, warning)
    return embeddings, ok, comparison
