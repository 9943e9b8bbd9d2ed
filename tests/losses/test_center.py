"""Center loss by hand, on several devices, and in runs that stop and go on."""

from helpers import shrunk
from helpers.stopped import train_until_saved
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import losses
from deeprank_jax.distributed import devices
from deeprank_jax.errors import ConfigError
from deeprank_jax.losses.center import move_centers
from deeprank_jax.training import checkpoints, experiment, loop

AT_START = dict(step=0, key=jax.random.key(0))


def random_images(num=16, num_classes=5, num_features=3):
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(num, num_classes + num_features)).astype(np.float32)
    centers = rng.normal(size=(num_classes, num_features)).astype(np.float32)
    return outputs, centers, rng.integers(0, num_classes - 1, num)


@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_the_loss_by_hand(weight):
    outputs, centers, labels = random_images()
    loss = losses.create_loss({"name": "center", "weight": weight})
    batch = {"labels": labels[:, None], "memory": {"centers": jnp.asarray(centers)}}
    value = loss(jnp.asarray(outputs)[:, None], batch, **AT_START)
    for row, label, actual in zip(outputs, labels, value, strict=True):
        entropy = np.log(np.exp(row[:5] - row[label]).sum())
        distance = ((row[5:] - centers[label]) ** 2).sum() / 2
        np.testing.assert_allclose(actual, entropy + weight * distance, rtol=1e-5)


def test_the_gradient_leads_features_to_their_center_and_leaves_the_center():
    outputs, centers, labels = random_images()
    loss = losses.create_loss({"name": "center", "weight": 0.4})

    def total(features, centers):
        joined = jnp.concatenate([outputs[:, :5], features], axis=-1)[:, None]
        batch = {"labels": labels[:, None], "memory": {"centers": centers}}
        return loss(joined, batch, **AT_START).sum()

    features = jnp.asarray(outputs[:, 5:])
    of_features, of_centers = jax.grad(total, (0, 1))(features, jnp.asarray(centers))
    expected = 0.4 * (features - centers[labels])
    np.testing.assert_allclose(of_features, expected, rtol=1e-5, atol=1e-6)
    assert not np.any(of_centers)


def moved_by_hand(centers, features, labels, rate):
    moved = centers.astype(np.float64)
    for label in range(len(centers)):
        rows = features[labels == label].astype(np.float64)
        moved[label] -= rate * (centers[label] - rows).sum(axis=0) / (1 + len(rows))
    return moved


def test_centers_move_as_by_hand_and_alike_on_all_devices():
    outputs, centers, labels = random_images()
    features = outputs[:, 5:]
    expected = moved_by_hand(centers, features, labels, 0.5)
    np.testing.assert_array_equal(expected[4], centers[4])  # No image has its class.
    move = lambda x, y, axis: move_centers(
        jnp.asarray(centers), x, y, rate=0.5, axis_name=axis
    )
    np.testing.assert_allclose(move(features, labels, None), expected, atol=1e-6)
    on_devices = jax.pmap(
        lambda x, y: move(x, y, devices.DATA_AXIS), axis_name=devices.DATA_AXIS
    )(features.reshape(4, 4, 3), labels.reshape(4, 4))
    for device in range(4):
        np.testing.assert_array_equal(on_devices[device], on_devices[0])
    np.testing.assert_allclose(on_devices[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(weight=-1.0), "weight must be at least 0"),
        (dict(weight=float("nan")), "weight must be at least 0"),
        (dict(rate=0.0), "rate must be above 0"),
        (dict(rate=1.5), "rate must be above 0 and at most 1"),
        (dict(label_smoothing=1.0), "label_smoothing must be at least 0"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(ConfigError, match=rf"config\.loss\.{message}"):
        losses.create_loss({"name": "center", **options})


def train_on_clusters(name, **options):
    """Trains a small network on ten noisy clusters in a plane of 16 dimensions.

    Returns:
      Distance of features within classes over that between, and the accuracy.
    """
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 10
    images = rng.normal(size=(10, 16))[labels] + 0.5 * rng.normal(size=(400, 16))
    images = jnp.asarray(images, jnp.float32)
    params = [
        jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), jnp.float32)
        for shape in ((16, 32), (32, 8), (8, 10))
    ]
    loss = losses.create_loss({"name": name, "label_smoothing": 0.0, **options})
    memory = losses.Center.create_memory(10, 8)
    features_of = lambda params, x: jax.nn.relu(x @ params[0]) @ params[1]

    def outputs_of(params):
        features = features_of(params, images)
        parts = [features @ params[2]]
        if name == "center":
            parts.append(features)
        return jnp.concatenate(parts, axis=-1)[:, None]

    @jax.jit
    def step(params, memory):
        batch = {"labels": jnp.asarray(labels)[:, None], "memory": memory}
        value = lambda params: loss(outputs_of(params), batch, **AT_START).mean()
        grads = jax.grad(value)(params)
        if name == "center":
            memory = loss.remember(memory, outputs_of(params), batch)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), memory

    for _ in range(300):
        params, memory = step(params, memory)
    features = np.asarray(features_of(params, images))
    accuracy = np.mean(np.argmax(features @ params[2], axis=1) == labels)
    same = labels[:, None] == labels
    distances = ((features[:, None] - features) ** 2).sum(axis=-1)
    within = distances[same & ~np.eye(len(labels), dtype=bool)].mean()
    return within / distances[~same].mean(), accuracy


def test_classes_become_more_compact_at_equal_accuracy():
    ratio, accuracy = train_on_clusters("center", weight=0.1)
    ratio_without, accuracy_without = train_on_clusters("cross_entropy")
    assert ratio < 0.8 * ratio_without
    assert accuracy >= accuracy_without > 0.9


VALUES = {"task": "classification", "evaluation.best_metric": "classification/top1"}


def create_config(images):
    loss = {"name": "center", "weight": 0.1}
    return shrunk.create_config(images, **VALUES, loss=loss)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Returns the images and the folder of a run that never stopped."""
    folder = tmp_path_factory.mktemp("center")
    images = shrunk.write_images(folder / "images")
    loop.train(create_config(images), folder / "run")
    return images, folder / "run"


def test_the_report_names_the_loss_and_the_network_has_no_centers(trained):
    _, workdir = trained
    page = (workdir / "report" / "index.html").read_text(encoding="utf-8")
    assert "distance to centers by 0.1" in page
    arrays = checkpoints.read_network(workdir).arrays
    assert not any("centers" in path for path in arrays)


def test_a_run_that_stopped_ends_with_the_same_bits(trained, tmp_path):
    images, whole = trained
    config = create_config(images)

    train_until_saved(config, tmp_path, 4)
    loop.train(config, tmp_path)
    centers = []
    for workdir in (whole, tmp_path):
        with experiment.create_experiment(config, workdir) as run:
            run.restore(8)
            centers.append(np.asarray(run.state.memory["centers"]))
    assert np.any(centers[0])
    np.testing.assert_array_equal(*centers)
    for name in ("results.json", "intervals.json"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
