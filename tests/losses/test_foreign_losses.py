"""Losses with a vector per class are those of pytorch-metric-learning."""

import json
import os
import pathlib
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import losses

SCRIPT = pathlib.Path(__file__).with_name("foreign_losses.py")
PYTHON = os.environ.get("TORCH_PYTHON")


@pytest.mark.full  # Needs an environment of its own.
@pytest.mark.skipif(
    not PYTHON, reason="TORCH_PYTHON names no Python with requirements-bench.txt"
)
def test_another_package_finds_the_same(tmp_path):
    rng = np.random.default_rng(0)
    rows, vectors = rng.normal(size=(32, 16)), rng.normal(size=(7, 16))
    labels = rng.integers(0, 6, 32)  # One class has no image.
    path = tmp_path / "rows.npz"
    np.savez(path, rows=rows, vectors=vectors, labels=labels)
    command = [PYTHON, str(SCRIPT), str(path)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    expected = json.loads(out.stdout.splitlines()[-1])
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = jnp.asarray(unit(rows) @ unit(vectors).T, jnp.float32)[:, None]
    for name, value in expected.items():
        loss = losses.create_loss({"name": name})
        computed = loss(
            cosines, {"labels": labels[:, None]}, step=0, key=jax.random.key(0)
        )
        assert float(jnp.mean(computed)) == pytest.approx(value, rel=1e-5), name
