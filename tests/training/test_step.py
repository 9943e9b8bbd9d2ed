import dataclasses
import functools

from flax import nnx
from helpers import shrunk
from helpers.ranking_losses import create_loss
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deeprank_jax import models, relevance
from deeprank_jax.configs import base
from deeprank_jax.distributed import devices
from deeprank_jax.models import layers
from deeprank_jax.training import network
from deeprank_jax.training import step as ts
from deeprank_jax.training.tasks import ranking

HINGE = create_loss(
    margin=1.0,
    miner="sampled",
    symmetric=False,
    relevance_fn=relevance.SameClass().pairwise,
    min_relevance_gap=0.0,
)


class TinyNet(nnx.Module):
    """Conv, BatchNorm, pool, project: every kind of variable a real model has."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, 4, kernel_size=(3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(4, axis_name=devices.DATA_AXIS, rngs=rngs)
        self.head = nnx.Linear(4, 8, rngs=rngs)

    def __call__(self, images, key=None):
        x = nnx.relu(self.norm(self.conv(images / 255.0)))
        return layers.l2_normalize(self.head(x.mean(axis=(1, 2))))

    def embed(self, images):
        return self(images)


@pytest.fixture
def setup():
    tx = optax.sgd(0.1, momentum=0.9)
    graphdef, state = ts.create_train_state(TinyNet(rngs=nnx.Rngs(0)), tx)
    return ts.make_train_step(graphdef, tx, ranking.RankingObjective(HINGE)), state


def batches(num):
    rng = np.random.default_rng(0)
    for _ in range(num):
        yield {
            "images": rng.integers(0, 256, (16, 3, 6, 6, 3), np.uint8),
            "attributes": np.zeros((16, 3, 1), np.int32),
        }


def on_one_device(step):
    return jax.jit(
        jax.vmap(step, in_axes=(None, 0), out_axes=None, axis_name=devices.DATA_AXIS)
    )


def test_four_devices_train_as_one_does(setup):
    step, state = setup
    one = jax.tree.map(jnp.copy, state)  # The mapped step gives `state` away.
    start = jax.device_get(state.params)
    single = on_one_device(step)
    for batch in batches(5):
        one, metrics_one = single(one, jax.tree.map(lambda x: x[None], batch))

    assert jax.device_count() == 4
    many, compiled = devices.replicate(state), devices.pmap_step(step)
    for _, batch in devices.prefetch(batches(5), devices.split_over_devices):
        assert batch["images"].shape == (4, 4, 3, 6, 6, 3)
        many, metrics_many = compiled(many, batch)

    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), start, one.params)
    assert min(jax.tree.leaves(moved)) > 1e-4  # Every parameter learned.
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5),
        jax.device_get((one.params, one.model_state, metrics_one["loss"])),
        jax.device_get((many.params, many.model_state, metrics_many["loss"])),
    )


def test_step_is_compiled_once(setup):
    step, state = setup
    traces = []

    def counted(state, batch):
        traces.append(batch["images"].shape)
        return step(state, batch)

    state, compiled = devices.replicate(state), devices.pmap_step(counted)
    for _, batch in devices.prefetch(batches(3), devices.split_over_devices):
        state, _ = compiled(state, batch)
    assert traces == [(4, 3, 6, 6, 3)]
    assert int(state.step) == 3


@pytest.mark.parametrize(
    "options",
    [
        dict(miner="semi_hard", symmetric=True),
        dict(miner="distance_weighted", symmetric=True),
        dict(miner="batch_hard", symmetric=True),
        # What is searched changes on the way.
        dict(miner="batch_hard", symmetric=False, warmup_steps=2, soft_margin=True),
    ],
    ids=["semi_hard", "distance_weighted", "batch_hard", "warmed_up"],
)
def test_four_devices_search_all_images_as_one_does(options):
    tx = optax.sgd(0.1, momentum=0.9)
    graphdef, state = ts.create_train_state(TinyNet(rngs=nnx.Rngs(0)), tx)
    make = functools.partial(
        create_loss,
        margin=1.0,
        relevance_fn=relevance.SameClass().pairwise,
        min_relevance_gap=0.5,
        **options,
    )
    loss_fn = make(axis_name=devices.DATA_AXIS)
    step = ts.make_train_step(graphdef, tx, ranking.RankingObjective(loss_fn), seed=3)
    labels = np.random.default_rng(1).integers(0, 4, (16, 3, 1), np.int32)
    labels[:, 1], labels[:, 2] = labels[:, 0], labels[:, 0] + 1
    source = [{**batch, "attributes": labels} for batch in batches(4)]

    def train_on_four(step):
        # The mapped step gives its state away.
        many = devices.replicate(jax.tree.map(jnp.copy, state))
        compiled = devices.pmap_step(step)
        for _, batch in devices.prefetch(source, devices.split_over_devices):
            many, metrics = compiled(many, batch)
        return jax.device_get((many.params, many.model_state, metrics["loss"]))

    one, single = jax.tree.map(jnp.copy, state), on_one_device(step)
    for batch in source:
        one, metrics = single(one, jax.tree.map(lambda x: x[None], batch))
    expected = jax.device_get((one.params, one.model_state, metrics["loss"]))
    # Each in its own images: what this test is to tell.
    alone = train_on_four(
        ts.make_train_step(graphdef, tx, ranking.RankingObjective(make()), seed=3)
    )
    assert abs(alone[2] - expected[2]) > 1e-4
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5),
        expected,
        train_on_four(step),
    )


def test_the_loss_is_told_the_step_and_a_key_of_seed_and_step():
    told = []

    def spy(embeddings, batch, *, step, key):
        jax.debug.callback(
            lambda *x: told.append(tuple(map(int, x))), step, jax.random.bits(key)
        )
        return jnp.sum(embeddings, axis=(1, 2))

    def run(seed, first=0):
        tx, told[:] = optax.sgd(0.1), []
        graphdef, state = ts.create_train_state(TinyNet(rngs=nnx.Rngs(0)), tx)
        state = dataclasses.replace(state, step=jnp.int32(first))
        single = on_one_device(
            ts.make_train_step(graphdef, tx, ranking.RankingObjective(spy), seed=seed)
        )
        for batch in batches(2):
            state, _ = single(state, jax.tree.map(lambda x: x[None], batch))
        jax.effects_barrier()
        return list(told)

    bits = lambda seed, step: int(
        jax.random.bits(jax.random.fold_in(jax.random.key(seed), step))
    )
    assert run(3) == [(0, bits(3, 0)), (1, bits(3, 1))]
    assert run(4, first=7) == [(7, bits(4, 7)), (8, bits(4, 8))]
    assert len({bits(seed, step) for seed in (3, 4) for step in (0, 1, 7, 8)}) == 8


@pytest.mark.parametrize("where", ["embeddings", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing(where):
    class Fragile(TinyNet):
        def __call__(self, images, key=None):
            embeddings = super().__call__(images)
            first = images.reshape(len(images), -1)[:, 0]
            bad = (first == 255.0)[:, None]
            if where == "embeddings":
                return jnp.where(bad, jnp.nan, embeddings)
            # Finite forward, NaN backward: the square root of zero.
            return embeddings + jnp.sqrt(jnp.where(bad, 0.0, 1.0) * embeddings**2) * 0.0

    tx = optax.sgd(0.1, momentum=0.9)
    graphdef, state = ts.create_train_state(Fragile(rngs=nnx.Rngs(0)), tx)
    step = devices.pmap_step(
        ts.make_train_step(graphdef, tx, ranking.RankingObjective(HINGE))
    )
    good, bad = ({k: v.copy() for k, v in b.items()} for b in batches(2))
    for batch in (good, bad):
        batch["images"][:, :, 0, 0, 0] = 0
    bad["images"][5, 2, 0, 0, 0] = 255
    state = devices.replicate(state)
    state, metrics = step(state, devices.split_over_devices(good))
    assert int(metrics["skipped_in_a_row"]) == 0
    before = jax.device_get(state)
    for in_a_row in (1, 2):
        state, metrics = step(state, devices.split_over_devices(bad))
        after = jax.device_get(state)
        assert (int(after.step), int(after.skipped_in_a_row)) == (
            1 + in_a_row,
            in_a_row,
        )
        jax.tree.map(
            np.testing.assert_array_equal,
            (before.params, before.model_state, before.opt_state),
            (after.params, after.model_state, after.opt_state),
        )
    finite = np.asarray(metrics["finite"]).reshape(-1)
    expected = [5] if where == "embeddings" else []
    np.testing.assert_array_equal(np.flatnonzero(~finite), expected)
    state, _ = step(state, devices.split_over_devices(good))
    assert int(state.skipped_in_a_row) == 0


def test_embedding_does_not_depend_on_the_rest_of_the_batch(setup):
    _, state = setup
    tx = optax.sgd(0.1)
    graphdef, state = ts.create_train_state(TinyNet(rngs=nnx.Rngs(0)), tx)
    embed = devices.pmap_embed(ts.make_embed_step(graphdef))
    images = next(batches(1))["images"][:, 0]
    state = devices.replicate(state)
    whole, part = embed(state, images), embed(state, images[:5])
    assert part.shape == (5, 8)  # Padded to the devices inside.
    np.testing.assert_allclose(whole[:5], part, rtol=1e-5)


@pytest.mark.parametrize("what", ["embeddings", "once", "logits", "features"])
def test_what_is_asked_outside_training_is_that_part_of_the_network(what):
    options = dict(trunk=dict(name="convnet", widths=(4,)), image_size=8)
    shift = 2 if what == "once" else 0
    model = models.create_model(**options, embedding_dim=5, embed_shift=shift)
    if what == "logits":
        model = models.create_classifier(**options, num_classes=3)
    graphdef, state = ts.create_train_state(model, optax.sgd(0.1))
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    pixels = (images - np.float32(127.5)) / 127.5
    in_training = model.trunk(pixels)
    model = nnx.merge(graphdef, state.params, state.model_state)
    model.eval()
    said = model.trunk(pixels)
    assert np.abs(said - in_training).max() > 0.1
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    make, expected = {
        "embeddings": (ts.make_embed_step, lambda: unit(model.embedding(unit(said)))),
        "once": (ts.make_embed_once_step, lambda: unit(model.embedding(unit(said)))),
        "logits": (ts.make_logits_step, lambda: model.head(said)),
        "features": (ts.make_feature_step, lambda: unit(said)),
    }[what]
    found = make(graphdef)(state, images)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected(), atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_prefetch_keeps_every_batch_in_order(size):
    source = [np.full((8, 2), i, np.float32) for i in range(4)]
    pairs = list(devices.prefetch(source, devices.split_over_devices, size))
    assert [int(host[0, 0]) for host, _ in pairs] == [0, 1, 2, 3]
    assert [int(device[0, 0, 0]) for _, device in pairs] == [0, 1, 2, 3]


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(
        ValueError,
        match="batch_size=62 does not divide over 4 devices; choose 60 or 64",
    ):
        devices.check_divides(62)
    with pytest.raises(ValueError, match="batch of 3 does not divide"):
        devices.split_over_devices(np.zeros((3, 2)))


def test_the_real_network_trains_on_four_devices_as_on_one():
    config = shrunk.shrink(
        base.get_config(),
        **{
            "loss.miner": "sampled",
            # AdamW would turn the rounding of a gradient near 0 into a whole step.
            "optimizer.name": "sgd",
            "optimizer.learning_rate": 0.1,
            "schedule.warmup_steps": 0,
        },
    )
    graphdef, tx, state = network.create_network(
        config, lambda: network.create_model(config, None)
    )
    loss_fn = ranking.create_ranking_loss(config, relevance.SameClass().pairwise)
    step = ts.make_train_step(graphdef, tx, ranking.RankingObjective(loss_fn))
    rng = np.random.default_rng(0)
    source = [
        {
            "images": rng.integers(0, 256, (8, 3, 16, 16, 3), np.uint8),
            "attributes": np.zeros((8, 3, 1), np.int32),
        }
        for _ in range(5)
    ]
    one, start = jax.tree.map(jnp.copy, state), jax.device_get(state.params)
    single = on_one_device(step)
    for batch in source:
        one, _ = single(one, jax.tree.map(lambda x: x[None], batch))
    many, compiled = devices.replicate(state), devices.pmap_step(step)
    for _, batch in devices.prefetch(source, devices.split_over_devices):
        many, _ = compiled(many, batch)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), start, one.params)
    assert max(jax.tree.leaves(moved)) > 1e-3
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5),
        jax.device_get((one.params, one.model_state)),
        jax.device_get((many.params, many.model_state)),
    )


def test_a_batch_in_parts_trains_as_the_whole(setup):
    """Of a network without BatchNorm, whose statistics are those of a part."""
    tx = optax.sgd(0.1, momentum=0.9)

    class Plain(TinyNet):
        def __call__(self, images, key=None):
            x = nnx.relu(self.conv(images / 255.0))
            return layers.l2_normalize(self.head(x.mean(axis=(1, 2))))

    graphdef, state = ts.create_train_state(Plain(rngs=nnx.Rngs(0)), tx)
    ends = []
    for accumulate in (1, 2, 4):
        step = ts.make_train_step(
            graphdef, tx, ranking.RankingObjective(HINGE), accumulate=accumulate
        )
        many, compiled = devices.replicate(state), devices.pmap_step(step)
        many = jax.tree.map(jnp.copy, many)
        for batch in batches(3):
            many, metrics = compiled(many, devices.split_over_devices(batch))
        assert np.asarray(metrics["finite"]).shape == (4, 4)
        ends.append(jax.device_get((many.params, metrics["loss"])))
    for other in ends[1:]:
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
            ends[0],
            other,
        )


def test_parts_draw_differently_and_know_which_is_not_finite(setup):
    _, state = setup
    tx = optax.sgd(0.1)
    seen = []

    def spy(embeddings, batch, *, step, key):
        jax.debug.callback(lambda bits: seen.append(int(bits)), jax.random.bits(key))
        return HINGE(embeddings, batch, step=step, key=key)

    graphdef, state = ts.create_train_state(TinyNet(rngs=nnx.Rngs(0)), tx)
    step = ts.make_train_step(graphdef, tx, ranking.RankingObjective(spy), accumulate=2)
    batch = jax.tree.map(lambda x: x[None], next(batches(1)))
    on_one_device(step)(state, batch)
    jax.effects_barrier()
    assert len(set(seen)) == 2


def test_remat_keeps_the_numbers_and_fewer_activations():
    """Counted in what the gradient keeps: XLA:CPU puts the two forms together again."""
    config = shrunk.shrink(base.get_config(), **{"data.image_size": 32})
    config.model.trunk = dict(name="vgg16", fc_dim=16)
    config.model.paths = ()
    graphdef, _, state = network.create_network(
        config, lambda: network.create_model(config, None)
    )
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32, 3), np.uint8)

    def run(remat):
        forward = ts.make_forward(graphdef, remat=remat)
        first = lambda params: forward(params, state.model_state, images, None)[0]
        mapped = jax.vmap(
            lambda params: jax.vjp(first, params),
            axis_name=devices.DATA_AXIS, axis_size=1, in_axes=None,
        )  # fmt: skip
        outputs, vjp = jax.eval_shape(mapped, state.params)
        sizes = [x.size for x in jax.tree.leaves(vjp)]
        return outputs.shape, sum(sizes) - sum(
            x.size for x in jax.tree.leaves(state.params)
        )

    (shape, plain), (same_shape, kept) = run(False), run(True)
    assert shape == same_shape == (1, 2, 3, 8)
    assert 0 < kept < 0.4 * plain


def test_remat_has_the_same_gradient(setup):
    _, state = setup
    graphdef, _ = ts.create_train_state(TinyNet(rngs=nnx.Rngs(0)), optax.sgd(0.1))
    ends = []
    for remat in (False, True):
        step = ts.make_train_step(
            graphdef, optax.sgd(0.1), ranking.RankingObjective(HINGE), remat=remat
        )
        state = ts.create_train_state(TinyNet(rngs=nnx.Rngs(0)), optax.sgd(0.1))[1]
        batch = jax.tree.map(lambda x: x[None], next(batches(1)))
        ends.append(jax.device_get(on_one_device(step)(state, batch)))
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), *ends
    )


def test_a_frozen_trunk_stays_and_the_rest_learns():
    config = shrunk.shrink(base.get_config(), **{"optimizer.trunk_scale": 0.0})
    graphdef, tx, state = network.create_network(
        config, lambda: network.create_model(config, None)
    )
    loss_fn = ranking.create_ranking_loss(config, relevance.SameClass().pairwise)
    step = ts.make_train_step(
        graphdef, tx, ranking.RankingObjective(loss_fn), freeze_trunk=True
    )
    start = jax.device_get((state.params, state.model_state))
    rng = np.random.default_rng(0)
    batch = {
        "images": rng.integers(0, 256, (1, 8, 3, 16, 16, 3), np.uint8),
        "attributes": np.zeros((1, 8, 3, 1), np.int32),
    }
    single = on_one_device(step)
    for _ in range(3):
        state, _ = single(state, batch)
    end = jax.device_get((state.params, state.model_state))
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), start, end)
    for path, distance in jax.tree.leaves_with_path(moved):
        assert (distance == 0.0) == ("trunk" in jax.tree_util.keystr(path)), path


class Dropping(TinyNet):
    """A network that drops most of what it says in training."""

    def __call__(self, images, key=None):
        return layers.l2_normalize(layers.dropout(super().__call__(images), 0.5, key))


def test_dropout_is_on_in_training_and_differs_by_step_seed_and_device():
    graphdef, state = ts.create_train_state(Dropping(rngs=nnx.Rngs(0)), optax.sgd(0.0))
    seen = []

    def spy(outputs, batch, *, step, key):
        jax.debug.callback(lambda x: seen.append(np.asarray(x == 0.0)), outputs)
        return jnp.sum(outputs, axis=(1, 2)), {}

    def run(seed, step, freeze_trunk=False):
        seen.clear()
        fn = ts.make_train_step(
            graphdef, optax.sgd(0.0), spy, seed=seed, freeze_trunk=freeze_trunk
        )
        at = dataclasses.replace(state, step=jnp.int32(step))
        # The same images on both devices.
        batch = jax.tree.map(lambda x: np.stack([x[:4], x[:4]]), next(batches(1)))
        jax.block_until_ready(on_one_device(fn)(at, batch))
        jax.effects_barrier()
        return [x.tobytes() for x in seen], np.mean(np.stack(seen))

    first, share = run(0, 0)
    assert 0.4 < share < 0.6
    assert first == run(0, 0)[0]
    assert len({*first, *run(0, 1)[0], *run(1, 0)[0]}) == 6
    assert run(0, 0, freeze_trunk=True)[1] == 0.0


def test_running_averages_move_once_a_part():
    graphdef, state = ts.create_train_state(TinyNet(rngs=nnx.Rngs(0)), optax.sgd(0.0))
    batch = jax.tree.map(lambda x: x[None], next(batches(1)))

    def moved(parts):
        fn = ts.make_train_step(
            graphdef,
            optax.sgd(0.0),
            ranking.RankingObjective(HINGE),
            accumulate=parts,
        )
        after, metrics = on_one_device(fn)(state, batch)
        means = [
            float(np.abs(x).sum())
            for path, x in jax.tree.leaves_with_path(after.model_state)
            if "mean" in jax.tree_util.keystr(path)
        ]
        return sum(means), metrics

    (once, _), (twice, _) = moved(1), moved(2)
    # From 0: 1 - .99 of the mean, and 1 - .99 ** 2.
    assert twice / once == pytest.approx((1 - 0.99**2) / 0.01, rel=0.01)


@pytest.mark.parametrize("bad", [1, 14])
def test_parts_keep_the_order_of_what_is_not_finite(bad):
    class Fragile(TinyNet):
        def __call__(self, images, key=None):
            first = images.reshape(len(images), -1)[:, 0]
            return jnp.where((first == 255)[:, None], jnp.nan, super().__call__(images))

    graphdef, state = ts.create_train_state(Fragile(rngs=nnx.Rngs(0)), optax.sgd(0.1))
    fn = ts.make_train_step(
        graphdef, optax.sgd(0.1), ranking.RankingObjective(HINGE), accumulate=4
    )
    batch = {k: v.copy() for k, v in next(batches(1)).items()}
    batch["images"][:, :, 0, 0, 0] = 0
    batch["images"][bad, 1, 0, 0, 0] = 255
    _, metrics = on_one_device(fn)(state, jax.tree.map(lambda x: x[None], batch))
    finite = np.asarray(metrics["finite"]).reshape(-1)
    np.testing.assert_array_equal(np.flatnonzero(~finite), [bad])
