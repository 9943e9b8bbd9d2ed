"""Properties of every registered loss and miner."""

from helpers.ranking_losses import create_loss
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import losses
from deeprank_jax.errors import ConfigError
from deeprank_jax.losses import batch_mining, mining
from deeprank_jax.relevance import Hierarchy

RELEVANCE = Hierarchy((0.1, 1.0))
GAP = 0.5
CONTEXT = dict(relevance_fn=RELEVANCE.pairwise, min_relevance_gap=GAP, axis_name=None)
AT_START = dict(step=0, key=jax.random.key(0))
BUILT_IN = (
    "triplet_hinge", "triplet_soft_margin", "contrastive", "multi_similarity",
    "supcon", "rank_n_contrast", "circle", "fast_ap", "cross_entropy", "normface",
    "cosface", "arcface", "proxy_anchor", "ortho_hash", "distillation", "center",
    "nt_xent", "instance_discrimination", "pair_contrastive",
)  # fmt: skip
each_loss = pytest.mark.parametrize("name", BUILT_IN)
each_miner = pytest.mark.parametrize(
    "name", ["semi_hard", "distance_weighted", "batch_hard"]
)


def random_batch(loss, size=8, dim=4):
    """Returns outputs and a batch that a loss takes."""
    rng = np.random.default_rng(0)
    num_images = 3 if loss.outputs == "embeddings" else getattr(loss, "num_views", 1)
    outputs = rng.normal(size=(size, num_images, dim)).astype(np.float32)
    if loss.outputs in ("embeddings", "projections", "pairs"):
        outputs /= np.linalg.norm(outputs, axis=-1, keepdims=True)
    if loss.outputs in ("cosines", "code_cosines"):
        outputs = np.tanh(outputs)
    coarse = rng.integers(0, 3, (size, 3))
    labels = np.stack([coarse, coarse * 2 + rng.integers(0, 2, (size, 3))], axis=-1)
    labels[:, 1], labels[:, 2] = labels[:, 0], (labels[:, 0] + 2) % 6
    batch = {
        "attributes": jnp.asarray(labels, jnp.int32),
        "labels": jnp.asarray(coarse[:, :1], jnp.int32),
        "teacher": jnp.asarray(np.eye(5, dtype=np.float32)[coarse]),
        "instances": jnp.repeat(jnp.arange(size)[:, None], num_images, axis=1),
        "is_similar": jnp.arange(size) % 2,
    }
    if isinstance(loss, losses.RemembersClasses):
        sizes = (size, dim) if loss.outputs == "projections" else (3, dim - 3)
        batch["memory"] = loss.create_memory(*sizes)
    return jnp.asarray(outputs), batch


def test_the_tables_hold_every_kind():
    assert set(BUILT_IN) <= losses.LOSSES.keys()
    assert losses.MINERS.keys() == {
        "sampled", "semi_hard", "distance_weighted", "batch_hard"
    }  # fmt: skip


@pytest.mark.slow
@each_loss
def test_a_loss_is_one_finite_number_per_group_compiled_or_not(name):
    loss = losses.create_loss({"name": name}, **CONTEXT)
    outputs, batch = random_batch(loss)
    eager = loss(outputs, batch, **AT_START)
    assert eager.shape == (8,)
    assert np.all(np.isfinite(eager))
    assert np.all(eager >= 0)
    assert np.ptp(eager) > 0 or name == "proxy_anchor"  # One number of all images.
    compiled = jax.jit(loss)(outputs, batch, **AT_START)
    np.testing.assert_allclose(compiled, eager, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@each_loss
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_gradients_are_finite_even_where_all_outputs_coincide(name, scale):
    loss = losses.create_loss({"name": name}, **CONTEXT)
    outputs, batch = random_batch(loss)
    grad_fn = jax.jit(jax.grad(lambda x: loss(x, batch, **AT_START).mean()))
    grads = grad_fn(scale * outputs + 1 / 2)
    assert np.all(np.isfinite(grads))


@pytest.mark.slow
@each_loss
def test_the_order_of_groups_does_not_matter(name):
    loss = losses.create_loss({"name": name}, **CONTEXT)
    outputs, batch = random_batch(loss)
    loss = jax.jit(loss)
    order = np.random.default_rng(1).permutation(8)
    in_order = {k: x if k == "memory" else x[order] for k, x in batch.items()}
    permuted = loss(outputs[order], in_order, **AT_START)
    expected = loss(outputs, batch, **AT_START)[order]
    np.testing.assert_allclose(permuted, expected, rtol=1e-5, atol=1e-6)


@each_loss
def test_a_loss_says_what_it_takes_and_is(name):
    loss = losses.create_loss({"name": name}, **CONTEXT)
    assert loss.outputs in (
        "embeddings", "logits", "cosines", "code_cosines", "logits_and_features",
        "projections", "pairs",
    )  # fmt: skip
    assert loss.describe()


@pytest.mark.slow
@each_miner
def test_mined_images_are_positives_and_negatives(name):
    miner = losses.MINERS.create({"name": name})
    outputs, batch = random_batch(create_loss(**CONTEXT), size=12)
    images = batch_mining.gather_images(outputs, batch["attributes"], None)
    columns = 3 * jnp.arange(12)
    mined = batch_mining.mine(
        images,
        columns,
        columns + 1,
        miner=miner,
        relevance_fn=RELEVANCE.pairwise,
        min_relevance_gap=GAP,
        key=jax.random.key(0),
    )
    anchors = images.attributes[columns]
    of = lambda rows: RELEVANCE.pairwise(anchors, images.attributes[rows])
    own = of(columns + 1)
    has_negative = np.asarray(mined.has_negative)
    assert has_negative.any()
    fair = mining.is_less_relevant(of(mined.negatives), own, GAP)
    assert np.all(fair[has_negative])
    assert np.all(mining.is_as_relevant(of(mined.positives), own))
    assert np.all(mined.positives != columns)
    if not miner.mines_positives:
        np.testing.assert_array_equal(mined.positives, columns + 1)


def test_a_loss_takes_no_option_of_another():
    with pytest.raises(ConfigError, match=r"config\.loss\.margin is not an option of"):
        losses.create_loss({"name": "cross_entropy", "margin": 1.0}, **CONTEXT)
    section = {"name": "cross_entropy", "miner": {"name": "semi_hard"}}
    with pytest.raises(ConfigError, match=r"config\.loss\.miner is not an option of"):
        losses.create_loss(section, **CONTEXT)
    with pytest.raises(ConfigError, match="label_smoothing must be at least 0 and b"):
        losses.create_loss({"name": "cross_entropy", "label_smoothing": 1.0})


def test_a_loss_of_one_s_own_is_one_class():
    @losses.register_loss("mean_distance")
    class MeanDistance:
        outputs = "embeddings"

        def __init__(self, *, weight: float = 1.0):
            self.weight = weight

        def __call__(self, outputs, batch, *, step, key):
            return self.weight * jnp.mean(jnp.square(outputs), axis=(1, 2))

        def describe(self):
            return f"mean distance, weight {self.weight:g}"

    loss = losses.create_loss({"name": "mean_distance", "weight": 2.0}, **CONTEXT)
    np.testing.assert_allclose(loss(jnp.ones((2, 3, 4)), {}, **AT_START), [2.0, 2.0])


@pytest.mark.parametrize("lacking", ["__call__", "describe"])
def test_a_loss_that_lacks_a_method_is_named(lacking):
    methods = {"__call__": lambda self: None, "describe": lambda self: ""}
    del methods[lacking]
    with pytest.raises(ConfigError, match=rf"Mine, .* has no method {lacking}\(\)"):
        losses.register_loss("mine")(type("Mine", (), methods))


def test_a_miner_that_lacks_a_part_is_named():
    with pytest.raises(ConfigError, match=r"Mine, .* has no method __call__\(\)"):
        losses.register_miner("mine")(type("Mine", (), {}))
    losses.register_miner("mine")(type("Mine", (), {"__call__": lambda self: None}))
    section = {"name": "triplet_hinge", "miner": {"name": "mine"}}
    with pytest.raises(ConfigError, match="has no attribute 'mines_positives'"):
        losses.create_loss(section, **CONTEXT)


def test_the_options_of_a_loss_include_its_miner():
    section = {"name": "triplet_hinge", "margn": 1.0, "miner": {"name": "semi_hard"}}
    with pytest.raises(ConfigError, match="options are: margin, symmetric, miner"):
        losses.create_loss(section, **CONTEXT)
