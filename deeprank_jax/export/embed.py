"""Embeds images by this model, without deeprank_jax.

  python embed.py images.npy embeddings.npy
  python embed.py images.npy embeddings.npy onnx

images.npy holds RGB images, uint8 [N, S, S, 3]; model.json says S. The first form needs
jax and safetensors, the second onnxruntime.
"""

import pathlib
import sys

import numpy as np

FOLDER = pathlib.Path(__file__).resolve().parent


def embed_with_stablehlo(images):
    """Returns embeddings [N, D] float32."""
    import jax.export
    from safetensors.numpy import load_file

    code = bytearray((FOLDER / "model.stablehlo").read_bytes())
    weights = load_file(FOLDER / "weights.safetensors")
    return np.asarray(jax.export.deserialize(code).call(weights, images))


def embed_with_onnx(images):
    """Returns embeddings [N, D] float32."""
    import onnxruntime

    session = onnxruntime.InferenceSession(FOLDER / "model.onnx")
    return session.run(None, {session.get_inputs()[0].name: images})[0]


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    form = sys.argv[3] if len(sys.argv) == 4 else "stablehlo"
    embed = {"stablehlo": embed_with_stablehlo, "onnx": embed_with_onnx}[form]
    np.save(sys.argv[2], embed(np.load(sys.argv[1])))
