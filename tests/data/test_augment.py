import itertools

import numpy as np
import pytest
from scipy import stats

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
    augmented = run(
        triplets,
        shift_pixels=2,
        flip=True,
        color_jitter=0.5,
        zoom=0.2,
        rotate_degrees=10.0,
        quarter_turns=0.5,
        swap_colors=0.5,
        grayscale=0.5,
        crop_area=0.5,
        cutout=0.3,
        mixing=0.5,
        blur=1.0,
    )
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
    turned = run(triplets, seed, flip=True, zoom=0.2, rotate_degrees=9.0)
    turned_after = run(
        run(triplets, seed, flip=True), seed, zoom=0.2, rotate_degrees=9.0
    )
    np.testing.assert_array_equal(turned, turned_after)
    one, two = np.random.default_rng(seed), np.random.default_rng(seed)
    augment.augment_triplets(triplets, one)
    augment.augment_triplets(
        triplets, two, flip=True, shift_pixels=1, zoom=0.1, crop_area=0.5, cutout=0.2,
        blur=0.5,
    )  # fmt: skip
    assert one.random() == two.random()


def radius_and_angle(image):
    """Returns where the bright spot of a square image lies about its centre."""
    rows, columns = np.indices(image.shape[:2])
    weights = image[..., 0].astype(float)
    weights /= weights.sum()
    centre = (image.shape[0] - 1) / 2
    y, x = (weights * rows).sum() - centre, (weights * columns).sum() - centre
    return np.hypot(x, y), np.degrees(np.arctan2(-y, x))


def test_quarter_turns_turn_whole_groups_as_often_as_they_say():
    groups = noise(300, 4, 5, 5, 3)
    turned = run(groups, quarter_turns=0.4)
    times = []
    for before, after in zip(groups, turned, strict=True):
        times += [
            [k for k in range(4) if np.array_equal(np.rot90(x, k), y)]
            for x, y in zip(before, after, strict=True)
        ]
    times = np.array(times)[:, 0].reshape(300, 4)
    assert np.all(times == times[:, :1])  # The images of a group alike.
    counts = np.bincount(times[:, 0], minlength=4)
    assert (
        stats.chisquare(counts, 300 * np.array([0.6, 0.4 / 3, 0.4 / 3, 0.4 / 3]))[1]
        > 1e-3
    )


def test_colors_change_places_in_whole_groups():
    groups = noise(300, 2, 4, 4, 3)
    swapped = run(groups, swap_colors=0.5)
    orders = list(itertools.permutations(range(3)))
    places = []
    for before, after in zip(groups, swapped, strict=True):
        same = [np.array_equal(before[..., order], after) for order in orders]
        assert sum(same) == 1
        places.append(same.index(True))
    counts = np.bincount(places, minlength=6)
    # A sixth of the draws is the order as it was.
    expected = 300 * np.array([0.5 + 0.5 / 6, *[0.5 / 6] * 5])
    assert stats.chisquare(counts, expected)[1] > 1e-3


def test_groups_lose_their_colours_as_often_as_they_say():
    groups = noise(300, 2, 4, 4, 3)
    augmented = run(groups, grayscale=0.3)
    is_grey = np.all(augmented == augmented[..., :1], axis=(1, 2, 3, 4))
    same = np.all(augmented == groups, axis=(1, 2, 3, 4))
    assert np.all(is_grey ^ same)
    assert stats.binomtest(int(is_grey.sum()), 300, 0.3).pvalue > 1e-3
    expected = groups[is_grey] @ np.array([0.299, 0.587, 0.114])
    assert np.abs(augmented[is_grey][..., 0] - expected).max() <= 0.51


def test_a_crop_keeps_at_least_the_area_and_reaches_everywhere():
    rows, columns = np.indices((40, 40))
    image = np.stack([6 * rows, 6 * columns, 0 * rows], axis=-1).astype(np.uint8)
    augmented = run(np.tile(image, (200, 3, 1, 1, 1)), crop_area=0.25)
    flat = augmented.reshape(-1, 40, 40, 3).astype(float)
    # The gradients of the two channels say which part of the image is seen.
    tops, bottoms = (
        flat[:, 0, :, 0].mean(axis=1) / 6,
        flat[:, -1, :, 0].mean(axis=1) / 6,
    )
    lefts, rights = (
        flat[:, :, 0, 1].mean(axis=1) / 6,
        flat[:, :, -1, 1].mean(axis=1) / 6,
    )
    heights, widths = bottoms - tops + 1, rights - lefts + 1
    areas, aspects = heights * widths / 1600, widths / heights
    assert 0.23 < areas.min() < 0.32
    assert 0.9 < areas.max() < 1.01
    assert 0.7 < aspects.min() < 0.8
    assert 1.25 < aspects.max() < 1.4
    assert tops.min() == lefts.min() == 0
    assert tops.max() > 15
    assert lefts.max() > 15
    # The images of a group are cropped apart.
    assert np.mean(tops.reshape(200, 3)[:, 0] == tops.reshape(200, 3)[:, 1]) < 0.5


@pytest.mark.parametrize("least", [0.8, 0.95])
def test_a_crop_never_keeps_less_than_the_area(least):
    rows, columns = np.indices((64, 64))
    image = np.stack([4 * rows, 4 * columns, 0 * rows], axis=-1).astype(np.uint8)
    flat = run(np.tile(image, (200, 3, 1, 1, 1)), crop_area=least).astype(float)
    spans = [np.ptp(flat[..., k].reshape(-1, 64 * 64), axis=1) / 4 + 1 for k in (0, 1)]
    areas = spans[0] * spans[1] / 64**2
    assert least - 0.02 < areas.min() < least + 0.05


def test_cutout_hides_a_square_about_any_pixel():
    images = np.full((400, 1, 20, 20, 3), 7, np.uint8)
    augmented = run(images, cutout=0.3)
    assert set(np.unique(augmented)) == {7, 128}
    hidden = np.all(augmented[:, 0] == 128, axis=-1)
    sizes = hidden.sum(axis=(1, 2))
    assert sizes.max() == 36
    assert sizes.min() < 20  # Cut by the border.
    assert hidden.any(axis=0).all()
    tall, wide = hidden.any(axis=2).sum(axis=1), hidden.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(sizes, tall * wide)


def test_a_blur_is_of_any_strength_up_to_the_largest():
    dot = np.zeros((41, 41, 3), np.uint8)
    dot[20, 20] = 255
    rows, columns = np.indices(dot.shape[:2]) - 20
    blurred = run(np.tile(dot, (200, 3, 1, 1, 1)), blur=2.0).reshape(-1, 41, 41, 3)
    weights = blurred[..., 0] / blurred[..., 0].sum(axis=(1, 2), keepdims=True)
    deviations = np.sqrt(np.sum(weights * rows**2, axis=(1, 2)))
    assert deviations.min() < 0.1
    # Values below half of 1 of 255 are lost, so that the widest look less wide.
    assert 1.5 < deviations.max() < 2.1
    assert 0.8 < np.median(deviations) < 1.1
    across = np.sqrt(np.sum(weights * columns**2, axis=(1, 2)))
    np.testing.assert_allclose(across, deviations, atol=1e-6)
    flat = np.full((2, 3, 9, 9, 3), 77, np.uint8)
    np.testing.assert_array_equal(run(flat, blur=2.0), flat)


def test_zoom_and_rotation_move_a_spot_as_far_as_they_say():
    spot = np.zeros((41, 41, 3), np.uint8)
    spot[18:23, 28:33] = 255  # Ten pixels to the right of the centre.
    triplets = np.tile(spot, (100, 3, 1, 1, 1))
    augmented = run(triplets, zoom=0.25, rotate_degrees=30.0)
    found = np.array([radius_and_angle(x) for x in augmented.reshape(-1, 41, 41, 3)])
    scales, angles = found[:, 0] / 10, found[:, 1]
    assert 0.79 < scales.min() < 0.83
    assert 1.21 < scales.max() < 1.27
    assert abs(np.median(scales) - 1) < 0.03
    assert -30.5 < angles.min() < -28
    assert 28 < angles.max() < 30.5
    assert abs(np.corrcoef(scales, angles)[0, 1]) < 0.2
    # Each image of a triplet has its own: half of the range apart on average.
    assert np.ptp(angles.reshape(100, 3), axis=1).mean() > 20
    assert np.ptp(scales.reshape(100, 3), axis=1).mean() > 0.15


def test_zoom_and_rotation_repeat_the_edge():
    white = np.full((4, 3, 9, 9, 3), 255, np.uint8)
    turned = run(white, zoom=0.5, rotate_degrees=45.0)
    np.testing.assert_array_equal(turned, white)


def test_mixing_takes_a_rectangle_of_another_member():
    # Each image is filled with its place in the group.
    places = np.arange(4, dtype=np.uint8)[:, None, None, None]
    groups = np.zeros((500, 4, 20, 20, 3), np.uint8) + places
    mixed = run(groups, mixing=0.5, num_members=3)
    np.testing.assert_array_equal(mixed[:, 3], 3)
    foreign = mixed[:, :3, ..., 0] != places[:3, ..., 0]
    sizes = foreign.sum(axis=(2, 3))
    assert abs((sizes > 0).mean() - 0.5) < 0.04
    tall, wide = foreign.any(axis=3).sum(axis=2), foreign.any(axis=2).sum(axis=2)
    np.testing.assert_array_equal(sizes, tall * wide)
    assert 10 <= sizes[sizes > 0].min() < 30
    assert 190 <= sizes.max() <= 210
    assert foreign.any(axis=(0, 1)).all()
    for j in range(3):
        partners = mixed[:, j, ..., 0][foreign[:, j]]
        assert set(partners) == {0, 1, 2} - {j}


def test_views_are_augmented_each_on_its_own():
    views = np.repeat(noise(200, 1, 6, 6, 3), 2, axis=1)
    options = dict(flip=True, grayscale=0.3)
    augmented = augment.augment_views(views, np.random.default_rng(0), **options)
    assert augmented.shape == views.shape
    mirrored = np.array(
        [
            [np.array_equal(y.mean(-1).round(), x[:, ::-1].mean(-1).round()) for y in z]
            for x, z in zip(views[:, 0], augmented, strict=True)
        ]
    )
    is_grey = np.all(augmented == augmented[..., :1], axis=(2, 3, 4))
    for drawn, share in ((mirrored[~is_grey.any(axis=1)], 0.5), (is_grey, 0.3)):
        first, second = drawn.T
        both = int(np.sum(first & second))
        assert stats.binomtest(both, len(drawn), share**2).pvalue > 1e-3


def test_an_image_alone_is_not_mixed():
    images = noise(50, 1, 9, 9, 3)
    np.testing.assert_array_equal(run(images, mixing=1.0, num_members=4), images)
