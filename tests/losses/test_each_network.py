import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import losses
from deeprank_jax.losses.memory import create_memory, remember
from deeprank_jax.models import layers
from deeprank_jax.relevance import SameClass

DIMS = (5, 3, 4)


def loss_of_classes(memory_size=0):
    return losses.create_loss(
        {"name": "multi_similarity", "memory_size": memory_size},
        relevance_fn=SameClass().pairwise,
        min_relevance_gap=0.01,
        positives_per_anchor=1,
        negatives_per_anchor=0,
    )


def unit_vectors(seed, num_groups=6):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=(num_groups, 2, dim)) for dim in DIMS]
    return [layers.l2_normalize(jnp.asarray(part, jnp.float32)) for part in parts]


def join(parts):
    return layers.l2_normalize(jnp.concatenate(parts, axis=-1))


def batch_of(num_groups=6):
    labels = np.repeat(np.arange(num_groups) % 4, 2).reshape(num_groups, 2, 1)
    return {"attributes": jnp.asarray(labels, jnp.int32)}


@pytest.mark.parametrize("memory_size", [0, 12])
def test_the_loss_is_the_sum_of_those_of_each_network_alone(memory_size):
    loss = loss_of_classes(memory_size)
    of_each = losses.EachNetwork(loss, other_dims=DIMS[1:])
    parts, earlier, batch = unit_vectors(0), unit_vectors(1), batch_of()

    def with_memory(embeddings):
        if not memory_size:
            return batch
        memory = create_memory(12, embeddings.shape[-1], np.zeros((1, 1), np.int32))
        memory = remember(memory, embeddings, batch["attributes"], None)
        return {**batch, "memory": memory}

    options = {"step": 0, "key": jax.random.key(0)}
    expected = np.sum(
        [
            loss(x, with_memory(y), **options)
            for x, y in zip(parts, earlier, strict=True)
        ],
        axis=0,
    )
    actual = of_each(join(parts), with_memory(join(earlier)), **options)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert (
        np.abs(actual - loss(join(parts), with_memory(join(earlier)), **options)).max()
        > 0.01
    )


def test_a_network_learns_the_same_whatever_the_others_are():
    of_each = losses.EachNetwork(loss_of_classes(), other_dims=DIMS[1:])
    first, *others = unit_vectors(0)

    def total(first, others):
        joined = join([layers.l2_normalize(first), *others])
        return of_each(joined, batch_of(), step=0, key=jax.random.key(0)).sum()

    gradient = jax.grad(total)
    np.testing.assert_allclose(
        gradient(first, others), gradient(first, unit_vectors(1)[1:]), atol=1e-6
    )
    assert np.abs(gradient(first, others)).max() > 1e-3


def test_the_description_tells_the_number_of_networks():
    loss = loss_of_classes()
    of_each = losses.EachNetwork(loss, other_dims=DIMS[1:])
    assert of_each.describe() == f"{loss.describe()}, of each of 3 networks"
    assert of_each.outputs == "embeddings"


def test_the_margin_is_that_of_a_sum():
    hinge = losses.TripletHinge(
        margin=0.3, relevance_fn=SameClass().pairwise, min_relevance_gap=0.01
    )
    assert losses.EachNetwork(hinge, other_dims=(3, 4)).margin == 3 * hinge.margin
    assert losses.EachNetwork(loss_of_classes(), other_dims=(3,)).margin is None
