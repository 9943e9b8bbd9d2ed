"""Vectors of classes: cosines to the nearest of each, its gradient, the network."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import losses, models
from deeprank_jax.errors import ConfigError
from deeprank_jax.models.class_vectors import ClassCount, ClassVectors

CONVNET = dict(trunk=dict(name="convnet", widths=(4, 8)), image_size=16)


def unit_rows(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def losses_by_hand(rows, vectors, labels, *, sub_centers, margin, scale):
    """Returns ArcFace's losses [B] with sub-centers, in float64."""
    values = []
    for row, label in zip(rows, labels, strict=True):
        cosines = np.array(
            [
                max(row @ v / np.linalg.norm(v) for v in vectors[i : i + sub_centers])
                for i in range(0, len(vectors), sub_centers)
            ]
        )
        cosines[label] = np.cos(np.arccos(cosines[label]) + margin)
        exponentials = np.exp(scale * cosines)
        values.append(-np.log(exponentials[label] / exponentials.sum()))
    return np.array(values)


@pytest.mark.parametrize("sub_centers", [1, 3])
def test_values_and_gradients_of_arcface_are_those_by_hand(sub_centers):
    rng = np.random.default_rng(0)
    rows, labels = unit_rows(rng.normal(size=(6, 8))), rng.integers(0, 4, 6)
    vectors = rng.normal(size=(4 * sub_centers, 8))
    options = dict(margin=0.3, scale=5.0, sub_centers=sub_centers)
    loss = losses.create_loss({"name": "arcface", **options})
    head = ClassVectors(8, ClassCount(4, loss.sub_centers), rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(head)

    def mean_loss(vectors):
        nnx.replace_by_pure_dict(state, {"kernel": vectors.T})
        head = nnx.merge(graphdef, state)
        batch = {"labels": jnp.asarray(labels)[:, None]}
        cosines = head(jnp.asarray(rows, jnp.float32))[:, None]
        return loss(cosines, batch, step=0, key=jax.random.key(0)).mean()

    value, gradient = jax.value_and_grad(mean_loss)(jnp.asarray(vectors, jnp.float32))
    by_hand = lambda x: losses_by_hand(rows, x, labels, **options).mean()
    assert value == pytest.approx(by_hand(vectors), rel=1e-5)
    differences = np.zeros_like(vectors)
    for index in np.ndindex(*vectors.shape):
        step = np.zeros_like(vectors)
        step[index] = 1e-6
        differences[index] = (by_hand(vectors + step) - by_hand(vectors - step)) / 2e-6
    np.testing.assert_allclose(gradient, differences, atol=1e-5)


def test_the_network_compares_its_embeddings_with_the_vectors():
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
    options = dict(embedding_dim=8, seed=2)
    model = models.create_model(**CONVNET, **options, head=ClassCount(3, 2))
    plain = models.create_model(**CONVNET, **options)
    model.eval()
    plain.eval()
    embeddings = np.asarray(plain.embed(images))
    np.testing.assert_array_equal(model.embed(images), embeddings)
    vectors = unit_rows(np.asarray(model.head.kernel[...]).T)
    expected = (embeddings @ vectors.T).reshape(5, 3, 2).max(axis=-1)
    np.testing.assert_allclose(model(images), expected, atol=1e-6)


def test_the_trunk_s_features_are_compared_in_the_same_way():
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
    model = models.create_classifier(
        **CONVNET, num_classes=3, outputs="cosines", sub_centers=2
    )
    model.eval()
    vectors = unit_rows(np.asarray(model.head.kernel[...]).T)
    expected = (np.asarray(model.embed(images)) @ vectors.T).reshape(5, 3, 2)
    np.testing.assert_allclose(model(images), expected.max(axis=-1), atol=1e-6)


def test_fewer_vectors_than_one_are_refused():
    message = r"config\.loss\.sub_centers must be at least 1, got 0"
    with pytest.raises(ConfigError, match=message):
        losses.create_loss({"name": "arcface", "sub_centers": 0})
