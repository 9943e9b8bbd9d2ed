"""Export of a run: its network in two or three forms, calibration and verification.

Each form is called on real images, in a process without this project, before the folder
gets its name.
"""

import dataclasses
import errno
import functools
import json
import os
import pathlib
from typing import Any

from absl import logging
import ml_collections
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from deeprank_jax import config as config_lib
from deeprank_jax import evaluation, version
from deeprank_jax.data import create_records, decode
from deeprank_jax.data.records import Records
from deeprank_jax.errors import DataError, ExportError
from deeprank_jax.evaluation import calibration
from deeprank_jax.export import copies, dataset, network, verification
from deeprank_jax.export.card import write_card
from deeprank_jax.inference import artifact, familiarity, program
from deeprank_jax.progress import Bar
from deeprank_jax.training import checkpoints, whitening
from deeprank_jax.training.experiment import create_reader
from deeprank_jax.training.network import trunk_names
from deeprank_jax.training.workdir import read_json

_NUM_VERIFIED = 64
# A threshold is exported if its precision on other classes is at most that much lower.
_TOLERANCE = 0.1
# Share of pairs of one class in a collection.
_RARE = 0.1


def export_run(
    workdir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    precision: float = 0.95,
    force_threshold: bool = False,
    onnx_python: str | None = None,
    data_dir: str | None = None,
    hub_license: str | None = None,
    embed_prefix: int | None = None,
) -> pathlib.Path:
    """Exports the best checkpoint of a run, and returns its folder.

    Args:
      workdir: Folder of the run, finished or not; its data must still be available.
      out: Folder to write, atomically.
      precision: Precision on validation of the pairs that `compare` calls similar.
      force_threshold: True for a threshold that is not confirmed on other classes.
      onnx_python: Python with the packages of requirements-onnx.txt, to write ONNX.
      data_dir: The run's `config.data.dir`, if its data have moved.
      hub_license: Licence for the YAML of model hubs; None for a card without it.
      embed_prefix: Number of an embedding's first numbers to keep; None for those of
        the run.

    Raises:
      ArtifactError: `out` exists already, or cannot be written.
      CheckpointError: There is no checkpoint, or it is damaged.
      ConfigError: The folder is not a run, or an embedding is shorter than the prefix.
      DataError: The run's results have changed since they were written.
      ExportError: A form cannot be written or differs, or precision is not in (0, 1].
    """
    workdir = pathlib.Path(workdir).expanduser()
    _check_precision(precision)
    config = config_lib.read_run_config(workdir)
    is_shortened = embed_prefix not in (None, config.model.embed_prefix)
    config.model.embed_prefix = embed_prefix or config.model.embed_prefix
    metrics = {} if is_shortened else _read_metrics(workdir)
    records = _open_data(config, data_dir)
    saved = whitening.with_whitening(checkpoints.read_network(workdir))
    embed, weights = network.create_embed(config, saved.arrays, source=str(saved.where))
    with artifact.writing(out) as folder:
        logging.info("Exporting %s.", saved.where)
        write_network(folder, config, embed, weights)
        if onnx_python:
            verification.convert_to_onnx(folder, onnx_python)
        evaluated = _EvaluatedNetwork(config, embed, weights, records)
        info = {
            "format": artifact.FORMAT,
            "name": workdir.resolve().name,
            **describe_network(config, folder),
            **evaluated.calibrate(precision, force=force_threshold),
            **evaluated.write_and_verify(folder, onnx_python),
            "metrics": metrics,
            "shortened": is_shortened,
            "dataset": dataset.describe_dataset(config, records, workdir),
            **_describe_checkpoint(saved, weights),
        }
        write_description(folder, info, config, pathlib.Path(out).name, hub_license)
    program.trust(pathlib.Path(out).expanduser())
    return pathlib.Path(out)


def _describe_checkpoint(
    saved: checkpoints.Saved, weights: network.Weights
) -> dict[str, Any]:
    """Returns the entries of `model.json` about the checkpoint."""
    return {
        "checkpoint_step": int(saved.where.name),
        "whitened": whitening.is_whitened(saved),
        "parameters": sum(x.size for x in weights.values()),
        "commit": version.commit(),
    }


def write_network(
    folder: pathlib.Path,
    config: ml_collections.ConfigDict,
    embed: network.Embed,
    weights: dict[str, np.ndarray],
) -> None:
    """Writes the config, the weights, the program and the script that calls it.

    Args:
      folder: Folder to write to.
      config: Whole configuration.
      embed: Function of the weights and images.
      weights: Weights by name.
    """
    values = network.without_folders(json.loads(config.to_json()))
    values["data"]["dir"] = pathlib.PurePath(config.data.dir).name
    text = json.dumps(values, indent=2) + "\n"
    (folder / artifact.CONFIG).write_text(text, encoding="utf-8")
    try:
        save_file(weights, folder / artifact.WEIGHTS)
    except SafetensorError as error:  # E.g. the disk is full.
        raise OSError(errno.EIO, str(error)) from error
    # safetensors makes the file readable by its owner only.
    (folder / artifact.WEIGHTS).chmod(0o644)
    network.write_stablehlo(
        folder / artifact.STABLEHLO, embed, weights, config.data.image_size
    )
    script = pathlib.Path(__file__).with_name(artifact.USE).read_text("utf-8")
    (folder / artifact.USE).write_text(script, encoding="utf-8")


class _EvaluatedNetwork:
    """A network, and the records that it is calibrated and verified on."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        embed: network.Embed,
        weights: network.Weights,
        records: dict[str, Records],
    ):
        self._config, self._records = config, records
        self.embed = network.make_embed_batches(embed, weights)

    def images_to_verify(self) -> np.ndarray:
        """Returns uint8 images `[n, S, S, 3]` of the test split, or of validation."""
        split = self._records.get("test", self._records["validation"])
        rng = np.random.default_rng(self._config.seed)
        with create_reader(self._config, split) as reader:
            images, ok = reader.load(rng.permutation(len(split))[:_NUM_VERIFIED])
        return images[ok]

    def verify(self, folder: pathlib.Path, onnx_python: str | None) -> dict[str, float]:
        """Returns the differences of the exported forms on test images.

        Args:
          folder: Folder of the forms.
          onnx_python: Python that calls the ONNX form; None without one.
        """
        images = self.images_to_verify()
        if not len(images):
            raise ExportError(
                "No test image can be read to verify the export with; the log says why."
            )
        return verification.verify(folder, images, self.embed(images), onnx_python)

    def calibrate(self, precision: float, *, force: bool = False) -> dict[str, Any]:
        """Returns thresholds and distances of copies, as model.json has them.

        Args:
          precision: Precision on validation of the pairs called similar.
          force: True to keep a threshold that is not confirmed on other classes.
        """
        embeddings, labels = self._validation
        data = self._config.data
        return {
            **self._calibrate_threshold(embeddings, labels, precision, force),
            **_calibrate_clusters(embeddings, labels, precision, force),
            "copies": copies.measure_copies(
                copies.read_some(self._records["validation"]),
                lambda x: decode.resize_image(x, data.image_size, data.fit),
                self.embed,
            ),
        }

    def _calibrate_threshold(
        self, embeddings: np.ndarray, labels: np.ndarray, precision: float, force: bool
    ) -> dict[str, Any]:
        """Returns the threshold of two similar images, or the reason that it is None.

        Args:
          embeddings: `[N, D]` embeddings of validation.
          labels: `[N]` their classes.
          precision: Precision of the pairs called similar.
          force: True to keep a threshold that validation does not support.
        """
        balanced = calibration.calibrate(embeddings, labels, precision)
        if balanced is None:
            return {"threshold": None, "no_threshold": _no_distance(precision)}
        reason = calibration.why_too_few(labels, precision)
        unseen = calibration.measure_unseen_precision(embeddings, labels, precision)
        reason = reason or _why_unsupported(unseen, precision, len(np.unique(labels)))
        if reason and not force:
            logging.warning(
                "Images are compared without a verdict: %s. --force_threshold exports "
                "the threshold all the same.",
                reason,
            )
            return {"threshold": None, "no_threshold": reason}
        measured = {"validation": balanced}
        if "test" in self._records:
            embedded = self._embed_split("test")
            measured["test"] = calibration.verify(*embedded, balanced.distance)
        return {
            "threshold": {
                "distance": balanced.distance,
                "wished_precision": precision,
                **{name: dataclasses.asdict(x) for name, x in measured.items()},
                "unseen_classes": unseen and dataclasses.asdict(unseen),
                "unsupported": reason,
            }
        }

    def write_and_verify(
        self, folder: pathlib.Path, onnx_python: str | None
    ) -> dict[str, Any]:
        """Writes embeddings of training images, and verifies the forms of the network.

        Args:
          folder: Folder of the model.
          onnx_python: Python that calls the ONNX form; None without one.

        Returns:
          The entries of model.json about both.
        """
        return {
            "familiar": self._write_references(folder),
            "agreement": self.verify(folder, onnx_python),
        }

    def _write_references(self, folder: pathlib.Path) -> dict[str, Any] | None:
        """Writes embeddings of training images, and returns their entry of model.json.

        Args:
          folder: Folder of the model.
        """
        split, num = self._records["train"], familiarity.NUM_REFERENCES
        rng = np.random.default_rng(self._config.seed)
        with create_reader(self._config, split) as reader:
            images, ok = reader.load(np.sort(rng.permutation(len(split))[:num]))
        rows = np.asarray(self.embed(images[ok]), np.float32)
        return familiarity.write_references(folder, rows, self._validation[0])

    @functools.cached_property
    def _validation(self) -> tuple[np.ndarray, np.ndarray]:
        return self._embed_split("validation")

    def _embed_split(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        split = self._records[name]
        with create_reader(self._config, split) as reader:
            batches = Bar(
                reader.batches(network.BATCH_SIZE),
                desc=name,
                total=-(-len(split) // network.BATCH_SIZE),
                unit="batch",
                leave=False,
            )
            embeddings, ok = evaluation.embed_split(self.embed, batches, len(split))
        return embeddings[ok], split.labels[ok, -1]


def _check_precision(precision: float) -> None:
    if not 0 < precision <= 1:
        raise ExportError(f"precision must be in (0, 1], got {precision}.")


def write_description(
    folder: pathlib.Path,
    info: dict[str, Any],
    config: ml_collections.ConfigDict,
    name: str,
    hub_license: str | None,
) -> None:
    """Writes `model.json` and the card.

    Args:
      folder: Folder to write to.
      info: Contents of `model.json`.
      config: Whole configuration.
      name: Name of the model's folder.
      hub_license: Licence for the YAML of model hubs; None for a card without it.
    """
    (folder / artifact.INFO).write_text(json.dumps(info, indent=2) + "\n", "utf-8")
    write_card(folder / artifact.CARD, info, config, name, hub_license)


def _open_data(
    config: ml_collections.ConfigDict, data_dir: str | None
) -> dict[str, Records]:
    """Returns the records of a run, and sets the place of its data if it is given.

    Raises:
      DataError: They cannot be found.
    """
    if data_dir is not None:
        config.data.dir = data_dir
    try:
        return create_records(config.data)
    except DataError as error:
        raise DataError(
            f"The data of the run cannot be used: {error} If they have moved, give "
            "--data_dir, the path of the folder or manifest."
        ) from error


def _calibrate_clusters(
    embeddings: np.ndarray, labels: np.ndarray, precision: float, force: bool
) -> dict[str, Any]:
    """Returns the distance of similar images in a collection, or why there is none.

    Args:
      embeddings: `[N, D]` embeddings of validation.
      labels: `[N]` their classes.
      precision: Precision of the pairs called similar.
      force: True to keep a distance that rests on too few pairs.
    """
    balanced = calibration.calibrate(embeddings, labels, precision, prior=_RARE)
    reason = "" if balanced else _no_distance(precision)
    reason = reason or calibration.why_too_few(labels, precision, prior=_RARE)
    if balanced and (force or not reason):
        return {"cluster_distance": balanced.distance}
    logging.warning("Images of a collection have no verdict either: %s.", reason)
    return {"cluster_distance": None, "no_cluster_distance": reason}


def _no_distance(precision: float) -> str:
    return f"no distance has the precision {precision:g} on validation"


def _why_unsupported(
    unseen: calibration.UnseenPrecision | None, precision: float, num_classes: int
) -> str:
    """Returns the reason that validation does not support a threshold, or "".

    Args:
      unseen: Precision on classes that a threshold was not calibrated on.
      precision: Precision of the pairs called similar.
      num_classes: Number of classes of validation.
    """
    if unseen is None:
        return (
            f"the {num_classes} classes of validation are too few to check a threshold"
        )
    if unseen.low < precision - _TOLERANCE:
        return (
            "the precision of a threshold on classes it was not calibrated on is "
            f"{unseen.mean:.2f}, from {unseen.low:.2f} to {unseen.high:.2f}"
        )
    return ""


def _read_metrics(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns the metrics on test, or on validation; none if the run has not ended."""
    path = workdir / "results.json"
    try:
        results = read_json(path)
        return results.get("test") or results["validation"]
    except FileNotFoundError:
        logging.warning("%s has not ended: the card will have no metrics.", workdir)
        return {}
    except KeyError as error:
        raise ExportError(
            f"{path} has no {error}; run the training command again to write it."
        ) from error


def describe_network(
    config: ml_collections.ConfigDict, folder: pathlib.Path
) -> dict[str, Any]:
    """Returns the entries of model.json about the network and its images.

    Args:
      config: Whole configuration.
      folder: Folder with the weights.
    """
    preprocessing = {
        "image_size": config.data.image_size,
        "fit": config.data.fit,
        "max_pixels": config.data.max_pixels,
    }
    return {
        "fingerprint": artifact.fingerprint(
            folder, preprocessing, config.model.embed_prefix
        ),
        "preprocessing": preprocessing,
        "network": " beside ".join(trunk_names(config)),
    }
