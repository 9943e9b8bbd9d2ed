"""Memory of earlier batches: content, roles of its images, and devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import losses
from deeprank_jax.distributed import devices
from deeprank_jax.losses.memory import create_memory, remember
from deeprank_jax.relevance import Hierarchy

RELEVANCE = Hierarchy((0.1, 1.0))
AT_START = dict(step=0, key=jax.random.key(0))


def create(name="supcon", axis_name=None, **options):
    """Returns a loss as one compiled program."""
    loss = losses.create_loss(
        {"name": name, **options},
        relevance_fn=RELEVANCE.pairwise,
        min_relevance_gap=0.5,
        axis_name=axis_name,
        positives_per_anchor=1,
        negatives_per_anchor=0,
    )
    return jax.jit(loss)


def random_groups(seed, size=4):
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(size, 2, 3)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    fine = np.repeat(rng.integers(0, 6, (size, 1)), 2, axis=1)
    attributes = np.stack([fine // 2, fine], axis=-1).astype(np.int32)
    return jnp.asarray(embeddings), jnp.asarray(attributes)


def test_the_newest_come_first_and_the_oldest_go():
    memory = create_memory(20, 3, np.zeros((1, 2), np.int32))
    batches = [random_groups(seed) for seed in range(4)]
    for number, (embeddings, attributes) in enumerate(batches):
        memory = remember(memory, embeddings, attributes, None)
        assert memory["filled"] == min(8 * (number + 1), 20)
    for name, index in (("embeddings", 0), ("attributes", 1)):
        newest = [batch[index].reshape(8, -1) for batch in batches[::-1]]
        np.testing.assert_array_equal(memory[name], np.concatenate(newest)[:20])


def test_no_size_is_no_memory():
    assert create_memory(0, 3, np.zeros((1, 2), np.int32)) == {}


@pytest.mark.parametrize("name", ["supcon", "multi_similarity", "rank_n_contrast"])
def test_remembered_images_count_as_those_of_the_batch(name):
    """The first groups of a batch of eight, the others in memory."""
    embeddings, attributes = random_groups(0, size=8)
    memory = create_memory(32, 3, np.asarray(attributes)[0])
    memory = remember(memory, embeddings[3:], attributes[3:], None)
    loss = create(name, memory_size=32)
    whole = loss(embeddings, {"attributes": attributes}, **AT_START)
    batch = {"attributes": attributes[:3], "memory": memory}
    np.testing.assert_allclose(loss(embeddings[:3], batch, **AT_START), whole[:3],
                               rtol=1e-5)  # fmt: skip
    alone = loss(embeddings[:3], {"attributes": attributes[:3]}, **AT_START)
    assert np.abs(alone - whole[:3]).max() > 0.01


def test_a_loss_takes_the_newest_of_a_larger_memory():
    embeddings, attributes = random_groups(0, size=8)
    memory = create_memory(32, 3, np.asarray(attributes)[0])
    for start in (5, 2):  # The groups 2 to 4 are the newest.
        part = slice(start, start + 3)
        memory = remember(memory, embeddings[part], attributes[part], None)
    batch = {"attributes": attributes[:2], "memory": memory}
    value = lambda size, x, batch: create("supcon", memory_size=size)(
        x, batch, **AT_START
    )
    whole = value(0, embeddings[:5], {"attributes": attributes[:5]})
    np.testing.assert_allclose(value(6, embeddings[:2], batch), whole[:2], rtol=1e-5)
    alone = value(0, embeddings[:2], {"attributes": attributes[:2]})
    np.testing.assert_array_equal(value(0, embeddings[:2], batch), alone)
    assert np.abs(value(32, embeddings[:2], batch) - whole[:2]).max() > 1e-3


def test_an_empty_memory_changes_nothing():
    embeddings, attributes = random_groups(1)
    memory = create_memory(16, 3, np.asarray(attributes)[0])
    for name in ("supcon", "multi_similarity", "rank_n_contrast", "circle", "fast_ap"):
        value = lambda batch, name=name: create(name, memory_size=16)(
            embeddings, batch, **AT_START
        )
        np.testing.assert_allclose(
            value({"attributes": attributes, "memory": memory}),
            value({"attributes": attributes}),
            rtol=1e-6,
        )


def test_no_gradient_flows_to_earlier_batches():
    embeddings, attributes = random_groups(2)
    memory = create_memory(16, 3, np.asarray(attributes)[0])

    def value(x):
        filled = remember(memory, x, attributes, None)
        batch = {"attributes": attributes, "memory": filled}
        return create(memory_size=16)(
            jax.lax.stop_gradient(embeddings), batch, **AT_START
        ).mean()

    assert not np.any(jax.grad(value)(embeddings))


def test_all_devices_remember_the_same():
    embeddings, attributes = random_groups(3, size=8)
    memory = create_memory(32, 3, np.asarray(attributes)[0])
    split = lambda x: x.reshape(4, 2, *x.shape[1:])
    on_devices = jax.pmap(
        lambda x, a: remember(memory, x, a, devices.DATA_AXIS),
        axis_name=devices.DATA_AXIS,
    )(split(embeddings), split(attributes))
    expected = remember(memory, embeddings, attributes, None)
    for name, values in expected.items():
        for device in range(4):
            np.testing.assert_array_equal(on_devices[name][device], values)


def test_a_negative_size_is_refused():
    with pytest.raises(ValueError, match=r"config\.loss\.memory_size must be at least"):
        create(memory_size=-1)
