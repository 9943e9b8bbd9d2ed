"""Exports a run: its network in two or three forms, what it can do, and the proof.

Each form is called in a process of its own that knows nothing of this project, on real
images, before the folder is given its name.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

from absl import logging
import jax
import ml_collections
import numpy as np
from safetensors.numpy import save_file
import tqdm

from deeprank_jax import config as config_lib
from deeprank_jax import evaluation, version
from deeprank_jax.data import create_records, decode
from deeprank_jax.data.records import Records
from deeprank_jax.errors import ExportError
from deeprank_jax.evaluation import calibration
from deeprank_jax.export import copies, network
from deeprank_jax.export.card import write_card
from deeprank_jax.inference import artifact
from deeprank_jax.training import checkpoints
from deeprank_jax.training.experiment import create_reader

# The largest difference of a component, float32.
TOLERANCE = 1e-4
_NUM_PROVED = 64
_BATCH_SIZE = 64


def export_run(
    workdir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    precision: float = 0.95,
    onnx_python: str | None = None,
) -> pathlib.Path:
    """Exports the best checkpoint of a run.

    Args:
      workdir: of the run, finished or not; its data must still be there.
      out: the folder to write; written whole or not at all.
      precision: of the pairs that `compare` calls similar, on validation.
      onnx_python: the Python of an environment with requirements-onnx.txt, to write
        ONNX, too.

    Returns:
      The folder.

    Raises:
      ValueError: the run cannot be read, or `out` is there already.
      CheckpointError: there is no checkpoint, or it is damaged.
      ExportError: a form could not be written, or differs from the checkpoint.
    """
    workdir = pathlib.Path(workdir).expanduser()
    calibration.check_share("precision", precision)
    config, metrics = config_lib.read_run_config(workdir), _read_metrics(workdir)
    saved = checkpoints.read_network(workdir)
    embed, weights = network.create_embed(config, saved.arrays, source=str(saved.where))
    with artifact.writing(out) as folder:
        logging.info("Exporting %s.", saved.where)
        (folder / artifact.CONFIG).write_text(
            config.to_json(indent=2) + "\n", encoding="utf-8"
        )
        save_file(weights, folder / artifact.WEIGHTS)
        # Written for its owner alone; the folder's other files are not.
        (folder / artifact.WEIGHTS).chmod(0o644)
        network.write_stablehlo(
            folder / artifact.STABLEHLO, embed, weights, config.data.image_size
        )
        use = pathlib.Path(__file__).with_name(artifact.USE).read_text("utf-8")
        (folder / artifact.USE).write_text(use, encoding="utf-8")
        if onnx_python:
            _convert_to_onnx(folder, onnx_python)
        records = create_records(config.data)
        measured = _Measured(config, jax.jit(embed), weights, records)
        info = {
            "format": artifact.FORMAT,
            "name": workdir.resolve().name,
            **_describe(config, folder),
            **measured.calibrate(precision),
            "agreement": _prove(folder, measured, onnx_python),
            "metrics": metrics,
            "dataset": {
                "name": config.data.name,
                **{f"{name}_images": len(split) for name, split in records.items()},
            },
            "checkpoint_step": int(saved.where.name),
            "parameters": sum(x.size for x in weights.values()),
            "commit": version.commit(),
        }
        (folder / artifact.INFO).write_text(json.dumps(info, indent=2) + "\n", "utf-8")
        name = pathlib.Path(out).name
        write_card(folder / artifact.CARD, info, config, name)
    return pathlib.Path(out)


class _Measured:
    """A network and the records that say what it can do."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        embed: network.Embed,
        weights: network.Weights,
        records: dict[str, Records],
    ):
        self._config, self._records = config, records
        self._embed, self._weights = embed, jax.device_put(weights)

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Returns embeddings `[N, D]` of uint8 images `[N, S, S, 3]`."""
        pieces = []
        for start in range(0, len(images), _BATCH_SIZE):
            batch = images[start : start + _BATCH_SIZE]
            # One shape is one program.
            padding = ((0, _BATCH_SIZE - len(batch)), *((0, 0),) * 3)
            embedded = self._embed(self._weights, np.pad(batch, padding))
            pieces.append(np.asarray(embedded)[: len(batch)])
        return np.concatenate(pieces)

    def images_to_prove(self) -> np.ndarray:
        """Returns uint8 images `[n, S, S, 3]` of the test split."""
        split = self._records["test"]
        rng = np.random.default_rng(self._config.seed)
        with create_reader(self._config, split) as reader:
            images, ok = reader.load(rng.permutation(len(split))[:_NUM_PROVED])
        return images[ok]

    def calibrate(self, precision: float) -> dict[str, Any]:
        """Returns the threshold and how far worse copies lie, as model.json has it."""
        embeddings, labels = self._embed_split("validation")
        found = calibration.calibrate(embeddings, labels, precision)
        in_tens = calibration.calibrate(embeddings, labels, precision, prior=0.1)
        on_test = None
        if found is not None:
            on_test = calibration.verify(*self._embed_split("test"), found.distance)
        data = self._config.data
        return {
            "threshold": found
            and {
                "distance": found.distance,
                "wished_precision": precision,
                "validation": dataclasses.asdict(found),
                "test": dataclasses.asdict(on_test),  # pyrefly: ignore
            },
            "cluster_distance": in_tens and in_tens.distance,
            "copies": copies.measure_copies(
                self._records["validation"],
                lambda x: decode.resize_image(x, data.image_size, data.fit),
                self.embed,
            ),
        }

    def _embed_split(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        split = self._records[name]
        with create_reader(self._config, split) as reader:
            batches = tqdm.tqdm(
                reader.batches(_BATCH_SIZE),
                desc=name,
                total=-(-len(split) // _BATCH_SIZE),
                unit="batch",
                leave=False,
            )
            embeddings, ok = evaluation.embed_split(self.embed, batches, len(split))
        return embeddings[ok], split.labels[ok, -1]


def _read_metrics(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns what the run was measured to on test; nothing if it has not ended."""
    path = workdir / "results.json"
    if not path.exists():
        logging.warning("%s has not ended: the card tells no metrics.", workdir)
        return {}
    return json.loads(path.read_text(encoding="utf-8"))["test"]


def _describe(
    config: ml_collections.ConfigDict, folder: pathlib.Path
) -> dict[str, Any]:
    preprocessing = {
        "image_size": config.data.image_size,
        "fit": config.data.fit,
        "max_pixels": config.data.max_pixels,
    }
    return {
        "fingerprint": artifact.fingerprint(folder, preprocessing),
        "preprocessing": preprocessing,
        "network": config.model.trunk.name,
    }


def _convert_to_onnx(folder: pathlib.Path, python: str) -> None:
    logging.info("Converting to ONNX.")
    module = "deeprank_jax.export.convert_onnx"
    root = str(pathlib.Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    _run([python, "-m", module, str(folder)], "ONNX", environment)


def _prove(
    folder: pathlib.Path, measured: _Measured, onnx_python: str | None
) -> dict[str, Any]:
    """Returns by how much each form differs from the checkpoint.

    Raises:
      ExportError: it differs by more than `TOLERANCE`.
    """
    images = measured.images_to_prove()
    if not len(images):
        raise ExportError("No test image can be read to prove the export with.")
    wanted = measured.embed(images)
    pythons = {"stablehlo": sys.executable}
    if onnx_python:
        pythons["onnx"] = onnx_python
    given, found = folder / "images.npy", folder / "embeddings.npy"
    np.save(given, images)
    agreement: dict[str, Any] = {"images": len(images), "dim": wanted.shape[1]}
    # As anybody would run it: nothing is set that this process sets for itself.
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    for form, python in pythons.items():
        logging.info("Calling %s in a process of its own.", form)
        command = [python, "-I", str(folder / artifact.USE)]
        _run([*command, str(given), str(found), form], form, environment)
        largest = float(np.abs(np.load(found) - wanted).max())
        logging.info("%s differs from the checkpoint by %.1e at most.", form, largest)
        if not largest <= TOLERANCE:
            raise ExportError(
                f"{form} differs from the checkpoint by {largest:.1e} on "
                f"{len(images)} images, more than {TOLERANCE:g}: not exported. Train "
                'and export with config.model.dtype="float32".'
            )
        agreement[form] = largest
    given.unlink()
    found.unlink()
    return agreement


def _run(command: list[str], what: str, environment: dict[str, str]) -> None:
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment
        )
    except OSError as error:
        raise ExportError(
            f"{command[0]} cannot be started ({error.strerror}); give the Python of an "
            "environment with requirements-onnx.txt."
        ) from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise ExportError(f"{what}: {' '.join(command[:4])} failed: {last}") from error
