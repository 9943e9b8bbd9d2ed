"""Parts of a run, created from its config: data, task, sampler, state and steps."""

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import functools
import pathlib
from typing import Any, Self

from absl import logging
from flax import nnx
import jax
import ml_collections
import numpy as np
import optax

from deeprank_jax import config as config_lib
from deeprank_jax import losses
from deeprank_jax.data import create_records
from deeprank_jax.data.augment import augment_triplets, augment_views
from deeprank_jax.data.reader import BadImages, ImageReader
from deeprank_jax.data.records import Records
from deeprank_jax.distributed import devices, processes
from deeprank_jax.errors import CheckpointError, ConfigError
from deeprank_jax.evaluation import best_metric
from deeprank_jax.losses.memory import create_memory
from deeprank_jax.registry import config_keys
from deeprank_jax.relevance import Relevance, attach, create_relevance
from deeprank_jax.sampling import BatchStream
from deeprank_jax.sampling.create import group_size
from deeprank_jax.sampling.stream import Batch, Sampler, VersionedSampler
from deeprank_jax.training import checkpoints, data_defaults
from deeprank_jax.training import network as network_lib
from deeprank_jax.training import step as step_lib
from deeprank_jax.training.tasks import Task, create_task
from deeprank_jax.training.teacher import Teacher, check_teacher, read_teacher
from deeprank_jax.training.workdir import Workdir


@dataclasses.dataclass(kw_only=True)
class Experiment:
    """Parts of a run.

    Attributes:
      config: Whole configuration.
      workdir: Folder of the run.
      records: Records of the splits `"train"`, `"validation"` and `"test"`.
      readers: Images of each split.
      relevance: Graded similarity of two records.
      task: Task that the network is trained for.
      sampler: Sampler of the training split.
      teacher: A teacher's embeddings of the training records; None without one.
      state: Train state, on all devices.
      train_step: Function from `(state, batch)` to `(state, metrics)`, on all devices.
      embed: Function from `(state, images [B, H, W, 3])` to embeddings `[B, D]`.
      features: Function from the same to the trunk's features, unit vectors `[B, F]`.
      embed_once: Function from the same to embeddings of one view, not whitened.
      logits: Function from the same to the network's outputs, of a classifier logits or
        cosines.
      checkpoints: Checkpoints of the run.
      log_checksum: Checksum of `metrics.jsonl` up to the step that was restored; None
        if none was.
    """

    config: ml_collections.ConfigDict
    workdir: pathlib.Path
    records: dict[str, Records]
    readers: dict[str, ImageReader]
    relevance: Relevance
    task: Task
    sampler: Sampler
    teacher: Teacher | None
    state: step_lib.TrainState
    train_step: Callable[..., tuple[step_lib.TrainState, step_lib.Metrics]]
    embed: Callable[[step_lib.TrainState, np.ndarray], np.ndarray]
    features: Callable[[step_lib.TrainState, np.ndarray], np.ndarray]
    embed_once: Callable[[step_lib.TrainState, np.ndarray], np.ndarray]
    logits: Callable[[step_lib.TrainState, np.ndarray], np.ndarray]
    checkpoints: checkpoints.Checkpoints
    log_checksum: str | None = None

    def __enter__(self) -> Self:
        """Takes over the readers' threads and the checkpoints."""
        self._resources = contextlib.ExitStack()
        for reader in self.readers.values():
            self._resources.enter_context(reader)
        self._resources.callback(self.checkpoints.close)
        return self

    def __exit__(self, *exception: object) -> None:
        """Ends the threads once pending checkpoints are on disk."""
        self._resources.close()

    def stream(self, first_step: int) -> BatchStream:
        """Returns the batches from `first_step` to the end of the run."""
        config = self.config
        return BatchStream(
            self.sampler,
            config.batch_size // jax.process_count(),
            self.readers["train"].load,
            functools.partial(
                augment_views if self.task.augments_alone else augment_triplets,
                **config.data.augment,
                num_members=1 + group_size(config)["positives_per_anchor"],
            ),
            first_step=first_step,
            num_steps=config.num_steps - first_step,
            depth=config.data.prefetch,
        )

    def validate_task(
        self,
        state: step_lib.TrainState,
        check: Callable[[], None] = lambda: None,
    ) -> dict[str, float]:
        """Returns the task's own metrics, as `"task/metric"`; they may be none."""
        metrics = self.task.validate(
            lambda images: self.logits(state, images),
            self.readers[getattr(self.task, "validation_split", "train")],
            check=check,
        )
        name = self.config.task.name
        return {f"{name}/{metric}": value for metric, value in metrics.items()}

    def create_initial_state(self) -> step_lib.TrainState:
        """Returns the network as it was before training, on all devices."""
        create = self.task.create_model
        return devices.replicate(network_lib.create_network(self.config, create)[2])

    def run_state(self, step: int) -> dict[str, Any]:
        """Returns the state that a run needs beside the train state to continue."""
        state = {
            "sampler": self.sampler.state(step),
            "records": self.records["train"].fingerprint,
            "config": config_lib.flatten_config(self.config),
        }
        if self.teacher is not None:
            state["teacher"] = self.teacher.digest
        return state

    def restore(self, step: int) -> None:
        """Replaces the state by the checkpoint of a step.

        Raises:
          CheckpointError: It belongs to another model, config or set of records.
        """
        state, saved = self.checkpoints.restore(self.state, step)
        where = self.checkpoints.directory / str(step)
        if isinstance(self.sampler, VersionedSampler):
            self.sampler.continue_as(saved.get("sampler", {}).get("version"))
        expected = self.run_state(step)
        if saved["records"] != expected["records"]:
            raise CheckpointError(
                f"{where} was made with records {saved['records']}, now they are "
                f"{expected['records']}: the triplets would not be those of the run. "
                "Give another --workdir, or the data the run began with. If they are "
                "the same, an earlier version took a file that is listed twice for two "
                "images: use that version, or begin anew."
            )
        config_lib.check_same_run(
            saved["config"],
            expected["config"],
            where,
            ended=step >= self.config.num_steps,
        )
        if len({x["teacher"] for x in (saved, expected) if "teacher" in x}) > 1:
            raise CheckpointError(
                f"{where} was made with other embeddings than "
                f"{self.config.data.teacher} now holds: the run could not go on as it "
                "began. Give another --workdir, or the file the run began with."
            )
        check_sampler(saved.get("sampler", {}), expected["sampler"], where)
        self.state, self.log_checksum = state, saved.get("log")


def create_experiment(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path
) -> Experiment:
    """Creates the parts of a run.

    Args:
      config: Whole configuration.
      workdir: Folder of the run.

    Raises:
      ConfigError: The config asks for something that does not exist.
      DataError: The data cannot be used.
    """
    config_lib.check_config(config)
    config = config_lib.resolve_config(data_defaults.fit_to_data(config))
    workdir = pathlib.Path(workdir)
    relevance, task = check_run(config)
    # Before data are prepared, which takes long, unless it depends on them.
    network = None
    if not task.needs_records:
        network = network_lib.create_network(config, task.create_model)
    records, sampler = _prepare_records(config, relevance, task)
    graphdef, tx, state = network or network_lib.create_network(
        config, task.create_model
    )
    bad_images = BadImages(
        Workdir(workdir).bad_images if processes.is_first() else None,
        sum(len(split) for split in records.values()),
        config.data.max_bad_share,
    )
    step = make_run_step(config, graphdef, tx, task)
    return Experiment(
        config=config,
        workdir=workdir,
        records=records,
        readers={
            name: create_reader(config, split, bad_images)
            for name, split in records.items()
        },
        relevance=relevance,
        task=task,
        sampler=sampler,
        teacher=read_teacher(config, records["train"]),
        state=devices.replicate(
            _with_memory(config, graphdef, records["train"], state)
        ),
        train_step=devices.pmap_step(step),
        embed=devices.pmap_embed(step_lib.make_embed_step(graphdef)),
        features=devices.pmap_embed(step_lib.make_feature_step(graphdef)),
        embed_once=devices.pmap_embed(step_lib.make_embed_once_step(graphdef)),
        logits=devices.pmap_embed(step_lib.make_logits_step(graphdef)),
        checkpoints=checkpoints.Checkpoints(
            Workdir(workdir).checkpoints, best_metric=config.evaluation.best_metric
        ),
    )


def check_run(config: ml_collections.ConfigDict) -> tuple[Relevance, Task]:
    """Checks all of a config that does not depend on the images.

    Args:
      config: Whole configuration, without values that are None for the data to choose.

    Returns:
      Its relevance and its task.

    Raises:
      ConfigError: The config asks for something that does not exist.
    """
    devices.check_divides(config.batch_size)
    _check_accumulates(config)
    relevance = create_run_relevance(config)
    task = create_task(config, relevance)
    check_teacher(config)
    check_best_metric(config, task)
    return relevance, task


def _prepare_records(
    config: ml_collections.ConfigDict, relevance: Relevance, task: Task
) -> tuple[dict[str, Records], Sampler]:
    """Returns the records of each split with their attributes, and the sampler."""
    with processes.first_alone():  # The others find the prepared files.
        records = create_records(config.data)
        config_lib.check_levels(config, records["train"].level_titles)
        records = attach(relevance, records)
        task.prepare(records)
        sampler = task.create_sampler(
            records, shard=jax.process_index(), num_shards=jax.process_count()
        )
    return records, sampler


def _with_memory(
    config: ml_collections.ConfigDict,
    graphdef: nnx.GraphDef,
    records: Records,
    state: step_lib.TrainState,
) -> step_lib.TrainState:
    """Returns the state with the memory of the loss, if it has one."""
    images = jax.ShapeDtypeStruct((1, *2 * (config.data.image_size,), 3), np.uint8)
    length = lambda step: jax.eval_shape(step, state, images).shape[-1]
    loss = losses.LOSSES[config.loss.name]
    if isinstance(loss, losses.RemembersClasses):
        num_features = length(step_lib.make_feature_step(graphdef))
        num_classes = length(step_lib.make_logits_step(graphdef))
        if loss.outputs == "logits_and_features":
            num_classes -= num_features
        elif loss.outputs == "projections":  # Each image is a class.
            num_classes, num_features = len(records), num_classes
        memory = loss.create_memory(num_classes, num_features)
    elif size := losses.memory_size(config.loss):
        memory = create_memory(
            size,
            length(step_lib.make_embed_once_step(graphdef)),
            devices.for_devices(records.attributes[:1]),
        )
    else:
        return state
    return dataclasses.replace(state, memory=memory)


def make_run_step(
    config: ml_collections.ConfigDict,
    graphdef: nnx.GraphDef,
    tx: optax.GradientTransformation,
    task: Task,
) -> Callable[..., tuple[step_lib.TrainState, step_lib.Metrics]]:
    """Returns the train step of a config, written for one device.

    Args:
      config: Whole configuration.
      graphdef: Structure of the network.
      tx: Optimizer.
      task: Task of the run.
    """
    return step_lib.make_train_step(
        graphdef,
        tx,
        task.objective(),
        seed=config.seed,
        accumulate=config.accumulate_steps,
        remat=config.model.remat,
        freeze_trunk=config.optimizer.trunk_scale == 0.0,
        ema_decay=config.optimizer.ema_decay,
    )


def _check_accumulates(config: ml_collections.ConfigDict) -> None:
    """Checks that each device's share of a batch divides into its parts.

    Raises:
      ConfigError: It does not.
    """
    share = config.batch_size // jax.device_count()
    if share % config.accumulate_steps:
        raise ConfigError(
            f"config.accumulate_steps={config.accumulate_steps} does not divide the "
            f"{share} triplets of each device: choose a number that does, or another "
            "config.batch_size."
        )


def create_run_relevance(config: ml_collections.ConfigDict) -> Relevance:
    """Returns the relevance that drives sampler, step and metrics."""
    return create_relevance(
        **config.relevance.to_dict(), category_level=config.triplets.category_level
    )


def check_best_metric(config: ml_collections.ConfigDict, task: Task) -> None:
    """Checks that the metric that selects a checkpoint is measured on validation.

    Raises:
      ConfigError: It is not; the message lists those that are.
    """
    metrics = describe_run_metrics(config, task)
    best_metric.check_best_metric(config.evaluation.best_metric, metrics)


def describe_run_metrics(
    config: ml_collections.ConfigDict, task: Task
) -> dict[str, str]:
    """Returns the meaning of each validation metric by its full name."""
    metrics = best_metric.describe_metrics(config.evaluation.evaluators.to_dict())
    of_task = {f"{config.task.name}/{name}": x for name, x in task.METRICS.items()}
    return metrics | of_task


def create_reader(
    config: ml_collections.ConfigDict,
    records: Records,
    bad_images: BadImages | None = None,
    *,
    image_size: int | None = None,
) -> ImageReader:
    """Returns the reader of a split's images, at the network's size or another."""
    with config_keys({"fit": "config.data.fit"}):
        return ImageReader(
            records,
            image_size=image_size or config.data.image_size,
            fit=config.data.fit,
            cache_mib=config.data.cache_mib if image_size is None else 0,
            workers=config.data.workers,
            max_pixels=config.data.max_pixels,
            bad_images=bad_images,
        )


def device_batch(batch: Batch, teacher: Teacher | None = None) -> dict[str, jax.Array]:
    """Puts the arrays of a batch on the devices.

    Args:
      batch: Batch of the stream.
      teacher: Teacher's embeddings of the training records.
    """
    arrays = {name: devices.for_devices(x) for name, x in batch.groups.arrays().items()}
    if teacher is not None:
        arrays["teacher"] = teacher.of(batch.groups.indices)
    return devices.split_over_devices({"images": batch.images, **arrays})


def check_sampler(
    saved: Mapping[str, object], expected: Mapping[str, object], where: pathlib.Path
) -> None:
    """Checks that the draws continue as they began.

    Args:
      saved: Sampler state of the checkpoint.
      expected: Sampler state of this run at the same step.
      where: Path of the checkpoint, for the message.

    Raises:
      CheckpointError: The draws would differ.
    """
    for name in sorted(saved.keys() | expected.keys()):
        if saved.get(name) == expected.get(name):
            continue
        if name == "num_shards":
            logging.warning(
                "Continuing with %s processes instead of %s: from here on epochs are "
                "shared among the new number.",
                expected[name],
                saved.get(name),
            )
            continue
        raise CheckpointError(
            f"{where} was made with the sampler's {name} {saved.get(name)}, now it is "
            f"{expected.get(name)}: the triplets would not be those of the run. Give "
            "another --workdir, or the version and data the run began with."
        )
