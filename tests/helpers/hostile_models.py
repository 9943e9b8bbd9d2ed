"""Small models that are written in a moment, and ways to make them hostile."""

import json
import os

import jax
from jax import export
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from deeprank_jax import config as config_lib
from deeprank_jax.config import loading
from deeprank_jax.inference import artifact, familiarity

SIZE, DIM = 8, 4
WEIGHTS = {"kernel": np.eye(3, DIM, dtype=np.float32)}
INFO = {
    "format": artifact.FORMAT,
    "name": "small",
    "fingerprint": "0123456789abcdef",
    "preprocessing": {"image_size": SIZE, "fit": "crop", "max_pixels": 10_000_000},
    "network": "mean",
    "threshold": None,
    "cluster_distance": 0.5,
    "copies": {"distance": 0.1, "pixel_distance": 0.1},
    "agreement": {"dim": DIM},
    "dataset": {"name": "photos"},
}


def embed(weights, images):
    return images.astype(jnp.float32).mean((1, 2)) @ weights["kernel"]


def endless(weights, images):
    start = embed(weights, images)
    return jax.lax.while_loop(lambda x: x.sum() < jnp.inf, lambda x: x * 0.5, start)


def calling(weights, images):
    """Calls a Python function of the process by its number."""
    start = embed(weights, images)
    shape = jax.ShapeDtypeStruct(start.shape, start.dtype)
    call = jax.ffi.ffi_call("xla_ffi_python_cpu_callback", shape)
    return call(start, index=np.uint64(77))


def huge(weights, images):
    return embed(weights, images) + jnp.ones((2**15, 2**15)).sum()


def program(function=embed, weights=WEIGHTS, size=SIZE, images_dtype=jnp.uint8):
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, size, size, 3), images_dtype)
    shapes = {k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in weights.items()}
    unchecked = export.DisabledSafetyCheck.custom_call("xla_ffi_python_cpu_callback")
    exported = export.export(
        jax.jit(function), platforms=("cpu",), disabled_checks=[unchecked]
    )
    return bytes(exported(shapes, images).serialize())


def config():
    return json.loads(
        config_lib.load_config(str(loading.config_folder() / "base.py")).to_json()
    )


def write_model(
    path, *, info=INFO, code=None, weights=WEIGHTS, settings=None, references=None
):
    """Writes a model with right checksums, whatever it holds.

    Args:
      path: Folder to write.
      info: Contents of `model.json`, or its text.
      code: Bytes of the program.
      weights: Weights by name, or the bytes of the file.
      settings: Contents of `config.json`, or its text.
      references: Bytes of the embeddings of training images; None for no such file.
    """
    settings = config() if settings is None else settings
    with artifact.writing(path) as folder:
        for name, content in ((artifact.INFO, info), (artifact.CONFIG, settings)):
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / name).write_text(text)
        if isinstance(weights, bytes):
            (folder / artifact.WEIGHTS).write_bytes(weights)
        else:
            save_file(weights, folder / artifact.WEIGHTS)
        (folder / artifact.STABLEHLO).write_bytes(program() if code is None else code)
        if references is not None:
            (folder / familiarity.FILE).write_bytes(references)
    return path


def changed(path, value, content=INFO):
    """Returns contents with another value at a dotted path, without it for None."""
    content = json.loads(json.dumps(content))
    *parents, name = path.split(".")
    section = content
    for parent in parents:
        section = section[parent]
    if value is None:
        del section[name]
    else:
        section[name] = value
    return content


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)
