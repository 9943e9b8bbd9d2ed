"""Instance discrimination by hand, on several devices, and in runs that go on."""

from helpers import shrunk
from helpers.stopped import train_until_saved
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import losses
from deeprank_jax.distributed import devices
from deeprank_jax.errors import CheckpointError, ConfigError
from deeprank_jax.losses.instance_discrimination import InstanceDiscrimination
from deeprank_jax.training import experiment, loop

AT_START = dict(step=0, key=jax.random.key(5))
NUM_IMAGES, NUM_NOISE = 11, 6


def create(axis_name=None, **options):
    section = {"name": "instance_discrimination", "num_noise": NUM_NOISE, **options}
    return losses.create_loss(section, axis_name=axis_name)


def random_batch(numbers=(4, 0, 9, 3, 7, 10, 1, 2), dim=5, normaliser=0.0):
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(len(numbers), 1, dim)).astype(np.float32)
    outputs /= np.linalg.norm(outputs, axis=-1, keepdims=True)
    memory = InstanceDiscrimination.create_memory(NUM_IMAGES, dim)
    memory["normaliser"] = jnp.float32(normaliser)
    numbers = jnp.asarray(numbers, jnp.int32)[:, None]
    return jnp.asarray(outputs), {"instances": numbers, "memory": memory}


def estimated_by_hand(outputs, bank, temperature):
    return len(bank) * np.exp(np.float64(outputs[:, 0]) @ bank.T / temperature).mean()


def by_hand(outputs, batch, normaliser, temperature=0.07):
    """Equations (5) to (7) of the paper in float64, with the noise that is drawn."""
    bank = np.float64(batch["memory"]["bank"])
    values = []
    for output, number in zip(outputs[:, 0], batch["instances"][:, 0], strict=True):
        key = jax.random.fold_in(AT_START["key"], number)
        noise = jax.random.randint(key, (NUM_NOISE,), 0, NUM_IMAGES)

        def probability(j, output=output):
            p = np.exp(bank[j] @ np.float64(output) / temperature) / normaliser
            return p / (p + NUM_NOISE / NUM_IMAGES)

        values.append(-np.log(probability(int(number))))
        values[-1] -= sum(np.log(1 - probability(int(j))) for j in noise)
    return values


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_the_loss_and_the_normaliser_of_the_first_batch_by_hand(temperature):
    outputs, batch = random_batch()
    loss = create(temperature=temperature)
    bank = np.float64(batch["memory"]["bank"])
    normaliser = estimated_by_hand(outputs, bank, temperature)
    expected = by_hand(outputs, batch, normaliser, temperature)
    assert np.ptp(expected) > 0.1
    computed = jax.jit(loss)(outputs, batch, **AT_START)
    np.testing.assert_allclose(computed, expected, rtol=1e-4)
    after = jax.jit(loss.remember)(batch["memory"], outputs, batch)
    np.testing.assert_allclose(after["normaliser"], normaliser, rtol=1e-5)


def test_the_normaliser_of_the_first_batch_stays():
    outputs, batch = random_batch(normaliser=40.0)
    computed = jax.jit(create())(outputs, batch, **AT_START)
    np.testing.assert_allclose(computed, by_hand(outputs, batch, 40.0), rtol=1e-4)
    after = create().remember(batch["memory"], outputs, batch)
    assert after["normaliser"] == 40.0


def test_the_bank_begins_with_random_unit_vectors():
    bank = InstanceDiscrimination.create_memory(500, 16)["bank"]
    np.testing.assert_allclose(np.linalg.norm(bank, axis=1), 1.0, rtol=1e-5)
    assert np.abs(np.mean(bank, axis=0)).max() < 0.06


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_the_bank_moves_as_by_hand_and_alike_on_all_devices(momentum):
    # Image 4 is drawn three times, once on another device.
    outputs, batch = random_batch(numbers=(4, 4, 9, 3, 7, 10, 1, 4))
    bank = np.float64(batch["memory"]["bank"])
    rows = np.float64(outputs[:, 0])
    numbers = np.asarray(batch["instances"])[:, 0]
    expected = bank.copy()
    for number in numbers:
        mean = rows[numbers == number].mean(axis=0)
        moved = momentum * bank[number] + (1 - momentum) * mean
        expected[number] = moved / np.linalg.norm(moved)
    after = jax.jit(create(momentum=momentum).remember)(
        batch["memory"], outputs, batch
    )["bank"]
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)
    untouched = np.setdiff1d(np.arange(NUM_IMAGES), numbers)
    np.testing.assert_array_equal(after[untouched], batch["memory"]["bank"][untouched])
    loss = create(momentum=momentum, axis_name=devices.DATA_AXIS)
    split = lambda x: x.reshape(4, 2, *x.shape[1:])
    spread = jax.pmap(
        lambda x, y: loss.remember(batch["memory"], x, {"instances": y}),
        axis_name=devices.DATA_AXIS,
    )(split(outputs), split(batch["instances"]))
    for device in range(4):
        for name in ("bank", "normaliser"):
            np.testing.assert_array_equal(spread[name][device], spread[name][0])
    np.testing.assert_allclose(spread["bank"][0], expected, rtol=1e-5, atol=1e-6)


def test_four_devices_are_one_and_the_bank_has_no_gradient():
    outputs, batch = random_batch()

    def total(loss):
        def value(x, bank, instances):
            memory = {**batch["memory"], "bank": bank}
            inputs = {"instances": instances, "memory": memory}
            return loss(x, inputs, **AT_START).mean()

        return jax.value_and_grad(value)

    bank, instances = batch["memory"]["bank"], batch["instances"]
    value, grads = jax.jit(total(create()))(outputs, bank, instances)
    assert np.any(grads)
    split = lambda x: x.reshape(4, 2, *x.shape[1:])
    values, spread = jax.pmap(
        total(create(axis_name=devices.DATA_AXIS)),
        axis_name=devices.DATA_AXIS,
        in_axes=(0, None, 0),
    )(split(outputs), bank, split(instances))
    np.testing.assert_allclose(values.mean(), value, rtol=1e-5)
    np.testing.assert_allclose(spread.reshape(8, 1, 5) / 4, grads, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(temperature=0.0), "temperature must be above 0"),
        (dict(num_noise=0), "num_noise must be at least 1"),
        (dict(momentum=1.0), "momentum must be at least 0 and below 1"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(ConfigError, match=rf"config\.loss\.{message}"):
        create(**options)


def create_config(images, **values):
    values = {
        "task": "self_supervised",
        "task.head_width": 16,
        "task.head_dim": 8,
        "loss": "instance_discrimination",
        "loss.num_noise": 32,
        "data.augment.crop_area": 0.5,
        **values,
    }
    return shrunk.create_config(images, **values)


def write_images(folder, num_images=3):
    """Writes classes enough that whole classes are of one split."""
    return shrunk.write_images(folder, num_classes=24, num_images=num_images)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Returns the images and the folder of a run that never stopped."""
    folder = tmp_path_factory.mktemp("instances")
    images = write_images(folder / "images")
    loop.train(create_config(images), folder / "run")
    return images, folder / "run"


def restored_memory(config, workdir, step):
    with experiment.create_experiment(config, workdir) as run:
        run.restore(step)
        num_images = len(run.records["train"])
        return jax.tree.map(np.asarray, dict(run.state.memory)), num_images


def test_a_run_that_stopped_ends_with_the_same_bits(trained, tmp_path):
    images, whole = trained
    config = create_config(images)
    train_until_saved(config, tmp_path, 4)
    loop.train(config, tmp_path)
    (one, num_images), (two, _) = (
        restored_memory(config, workdir, 8) for workdir in (whole, tmp_path)
    )
    assert one["bank"].shape == (num_images, 8)
    assert one["normaliser"] > 0
    start = InstanceDiscrimination.create_memory(num_images, 8)["bank"]
    assert np.mean(np.any(one["bank"] != start, axis=1)) > 0.5
    for name in ("bank", "normaliser"):
        np.testing.assert_array_equal(one[name], two[name])
    for name in ("results.json", "intervals.json"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()


def test_a_bank_of_other_images_is_refused(trained, tmp_path):
    _, workdir = trained
    for num_images in (3, 4):  # As many as before with other names, and more.
        images = write_images(tmp_path / str(num_images), num_images)
        for path in images.rglob("*.png"):
            path.rename(path.with_name(f"other {path.name}"))
        config = create_config(images)
        message = {
            3: "was made with records",
            4: r"holds another memory: memory/bank is .* images the checkpoint was",
        }[num_images]
        with (
            experiment.create_experiment(config, workdir) as run,
            pytest.raises(CheckpointError, match=message),
        ):
            run.restore(8)


def test_another_run_begins_with_a_bank_of_its_own(trained, tmp_path):
    images, workdir = trained
    config = create_config(images, init_from=str(workdir))
    with experiment.create_experiment(config, tmp_path) as run:
        memory = jax.tree.map(np.asarray, dict(run.state.memory))
    start = InstanceDiscrimination.create_memory(len(memory["bank"]), 8)
    np.testing.assert_array_equal(memory["bank"], start["bank"])
    assert memory["normaliser"] == 0
