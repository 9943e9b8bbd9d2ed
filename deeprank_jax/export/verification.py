"""Verification of an exported network: each form is called in a fresh process."""

import os
import pathlib
import sys

from absl import logging
import numpy as np

from deeprank_jax.distributed import children
from deeprank_jax.errors import ExportError
from deeprank_jax.inference import artifact

# The largest difference of a component, float32.
TOLERANCE = 1e-4


def convert_to_onnx(folder: pathlib.Path, python: str) -> None:
    """Writes the ONNX form of a folder's network.

    Args:
      folder: Folder with the config and the weights.
      python: Python of an environment with requirements-onnx.txt.

    Raises:
      ExportError: The conversion failed.
    """
    logging.info("Converting to ONNX.")
    module = "deeprank_jax.export.convert_onnx"
    root = str(pathlib.Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    _run([python, "-m", module, str(folder)], "ONNX", environment)


def verify(
    folder: pathlib.Path,
    images: np.ndarray,
    expected: np.ndarray,
    onnx_python: str | None = None,
) -> dict[str, float]:
    """Returns the largest difference between each form and the network itself.

    Args:
      folder: Folder with the forms and the script that calls them.
      images: `[n, S, S, 3]` uint8, images that each form embeds.
      expected: `[n, D]` float32, embeddings of the network itself.
      onnx_python: Python that calls the ONNX form; None without one.

    Raises:
      ExportError: A difference exceeds `TOLERANCE`, or a form cannot be called.
    """
    pythons = {"stablehlo": sys.executable}
    if onnx_python:
        pythons["onnx"] = onnx_python
    inputs, outputs = folder / "images.npy", folder / "embeddings.npy"
    np.save(inputs, images)
    agreement: dict[str, float] = {"images": len(images), "dim": expected.shape[1]}
    # The flags of this process must not help: a user's process does not have them.
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    for form, python in pythons.items():
        logging.info("Calling %s in a process of its own.", form)
        command = [python, "-I", str(folder / artifact.USE)]
        _run([*command, str(inputs), str(outputs), form], form, environment)
        largest = float(np.abs(np.load(outputs) - expected).max())
        logging.info("%s differs from the network by %.1e at most.", form, largest)
        if not largest <= TOLERANCE:
            raise ExportError(
                f"{form} differs from the network by {largest:.1e} on "
                f"{len(images)} images, more than {TOLERANCE:g}: not exported. Train "
                'and export with config.model.dtype="float32".'
            )
        agreement[form] = largest
    inputs.unlink()
    outputs.unlink()
    return agreement


def _run(command: list[str], form: str, environment: dict[str, str]) -> None:
    try:
        process = children.run(command, env=environment)
    except OSError as error:
        raise ExportError(
            f"{command[0]} cannot be started ({error.strerror}); give the Python of an "
            "environment with requirements-onnx.txt."
        ) from error
    if process.returncode:
        last = (process.stderr.strip().splitlines() or ["no message"])[-1]
        raise ExportError(f"{form}: {' '.join(command[:4])} failed: {last}")
