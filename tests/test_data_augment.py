import numpy as np
import pytest

from deeprank_jax.data import augment


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def run(triplets, seed=0, **options):
    return augment.augment_triplets(triplets, np.random.default_rng(seed), **options)


def find_shift(image, shifted, most):
    """Returns the only offset whose window with repeated edges is `shifted`."""
    height, width = image.shape[:2]
    found = []
    for y in range(-most, most + 1):
        for x in range(-most, most + 1):
            rows = np.clip(np.arange(height) + y, 0, height - 1)
            columns = np.clip(np.arange(width) + x, 0, width - 1)
            if np.array_equal(image[rows][:, columns], shifted):
                found.append((y, x))
    assert len(found) == 1
    return found[0]


def jitter(image, brightness, contrast, saturation):
    """One image, step by step, in floating point."""
    grey = image @ np.array([0.299, 0.587, 0.114])
    image = grey[..., None] + saturation * (image - grey[..., None])
    image = grey.mean() + contrast * (image - grey.mean())
    return np.clip(brightness * image, 0, 255)


def test_off_changes_nothing_in_fresh_memory():
    triplets = noise(4, 3, 9, 9, 3)
    augmented = run(triplets)
    np.testing.assert_array_equal(augmented, triplets)
    assert not np.shares_memory(augmented, triplets)


def test_every_kind_leaves_its_input_alone():
    triplets = noise(4, 3, 9, 9, 3)
    before = triplets.copy()
    augmented = run(triplets, shift_pixels=2, flip=True, color_jitter=0.5)
    np.testing.assert_array_equal(triplets, before)
    assert augmented.dtype == np.uint8
    assert augmented.shape == triplets.shape


def test_shifts_are_uniform_and_differ_within_a_triplet():
    triplets = noise(200, 3, 6, 7, 3)
    shifted = run(triplets, shift_pixels=1)
    flat = zip(triplets.reshape(-1, 6, 7, 3), shifted.reshape(-1, 6, 7, 3), strict=True)
    shifts = np.array([find_shift(*pair, 1) for pair in flat])
    counts = np.bincount((shifts + 1) @ [3, 1], minlength=9)
    expected = 600 / 9
    # 26.1 is the .999 quantile of chi-square with 8 degrees of freedom.
    assert np.sum((counts - expected) ** 2 / expected) < 26.1
    shifts = shifts.reshape(200, 3, 2)
    assert np.mean(np.all(shifts[:, 0] == shifts[:, 1], axis=-1)) < 0.3


def test_flips_mirror_whole_triplets_half_of_the_time():
    triplets = noise(200, 3, 4, 5, 3)
    flipped = run(triplets, flip=True)
    mirrored = np.all(flipped == triplets[..., ::-1, :], axis=(1, 2, 3, 4))
    same = np.all(flipped == triplets, axis=(1, 2, 3, 4))
    assert np.all(mirrored ^ same)
    assert 70 < mirrored.sum() < 130


def test_color_jitter_is_one_draw_per_triplet():
    triplets = noise(6, 3, 8, 8, 3)
    jittered = run(triplets, seed=3, color_jitter=0.4)
    rng = np.random.default_rng(3)
    rng.random(6)
    factors = 1 + 0.4 * rng.uniform(-1, 1, (6, 3))
    assert np.ptp(factors) > 0.3
    for i in range(6):
        for j in range(3):
            expected = jitter(triplets[i, j].astype(float), *factors[i])
            assert np.abs(jittered[i, j] - expected).max() < 1


@pytest.mark.parametrize("seed", range(3))
def test_a_kind_that_is_off_does_not_change_the_others(seed):
    triplets = noise(16, 3, 6, 6, 3)
    both = run(triplets, seed, flip=True, shift_pixels=2)
    shifted_after = run(run(triplets, seed, flip=True), seed, shift_pixels=2)
    np.testing.assert_array_equal(both, shifted_after)
    with_color = run(triplets, seed, flip=True, color_jitter=0.3)
    colored_first = run(run(triplets, seed, color_jitter=0.3), seed, flip=True)
    np.testing.assert_array_equal(with_color, colored_first)
    one, two = np.random.default_rng(seed), np.random.default_rng(seed)
    augment.augment_triplets(triplets, one)
    augment.augment_triplets(triplets, two, flip=True, shift_pixels=1)
    assert one.random() == two.random()
