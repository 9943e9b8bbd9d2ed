r"""Conversion of a model to `model.onnx`, run in an environment of its own.

  PYTHON -m deeprank_jax.export.convert_onnx FOLDER

PYTHON has the packages of requirements-onnx.txt, whose converter needs an older Orbax
than the rest of the project. FOLDER has `config.json` and `weights.safetensors`.
"""

import json
import pathlib
import sys

import jax
import ml_collections
import numpy as np
from safetensors.numpy import load_file

from deeprank_jax.config import upgrade_config
from deeprank_jax.distributed import backend
from deeprank_jax.export.network import create_embed
from deeprank_jax.inference import artifact
from deeprank_jax.models import cpu_ops


def convert(folder: pathlib.Path) -> None:
    """Writes the network and weights of a folder as ONNX.

    Args:
      folder: Folder with `config.json` and `weights.safetensors`.
    """
    import jax2onnx
    import onnx

    text = (folder / artifact.CONFIG).read_text(encoding="utf-8")
    config = ml_collections.ConfigDict(upgrade_config(json.loads(text)))
    arrays = load_file(folder / artifact.WEIGHTS)
    embed, weights = create_embed(config, arrays, source=str(folder))
    size = config.data.image_size
    images = jax.ShapeDtypeStruct(("batch", size, size, 3), np.uint8)
    with cpu_ops.plain_forms():
        model = jax2onnx.to_onnx(
            lambda images: embed(weights, images), [images], model_name="deeprank_jax"
        )
    onnx.checker.check_model(model)
    onnx.save(model, folder / artifact.ONNX)


if __name__ == "__main__":
    backend.configure_backend()
    convert(pathlib.Path(sys.argv[1]))
