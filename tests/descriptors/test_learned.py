"""Descriptors that are learned from images, against their definitions."""

import functools
import pickle

import numpy as np
import pytest
from skimage import feature
from sklearn import datasets, mixture
import threadpoolctl

from deeprank_jax import descriptors
from deeprank_jax.descriptors import (
    dense_sift,
    fisher,
    local_features,
    sift_words,
    texton_pyramid,
)
from deeprank_jax.errors import ConfigError, DataError

# Sizes that are learned in no time.
FITS = {
    "fisher": fisher.FisherLearner(dim=8, num_gaussians=4).fit,
    "sift_words": sift_words.SiftWordsLearner(num_words=16).fit,
    "texton_pyramid": texton_pyramid.TextonPyramidLearner(num_textons=16).fit,
}
COUNTED = {
    "fisher": "num_gaussians",
    "sift_words": "num_words",
    "texton_pyramid": "num_textons",
}


def random_images(num=6, height=32, width=40, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (num, height // 4, width // 4, 3))
    images = coarse.repeat(4, axis=1).repeat(4, axis=2)
    images += rng.integers(-20, 21, images.shape)
    return np.clip(images, 0, 255).astype(np.uint8)


def plain(*values, size=32):
    return np.stack([np.full((size, size, 3), v, np.uint8) for v in values])


@functools.cache
def fitted(name, seed=0, workers=1):
    return FITS[name](random_images(), seed=seed, workers=workers)


def test_every_learned_descriptor_is_tested():
    learned = set(descriptors.DESCRIPTORS) - set(descriptors.hand_made_names())
    assert learned == set(FITS)
    for name, fit in FITS.items():
        assert isinstance(fit.__self__, descriptors.DESCRIPTORS[name])


@pytest.mark.parametrize("name", sorted(FITS))
def test_a_row_is_a_function_of_its_image(name):
    images = random_images(5, seed=1)
    describe = fitted(name)
    found = describe(images)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert len(np.unique(found, axis=0)) == 5
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    shared = descriptors.describe_in_threads(describe, images[::-1], workers=3)[::-1]
    np.testing.assert_array_equal(shared, found)
    none = descriptors.describe_in_threads(describe, images[:0], workers=3)
    assert none.shape == (0, found.shape[1])
    copy = pickle.loads(pickle.dumps(describe))
    np.testing.assert_array_equal(copy(images), found)


@pytest.mark.parametrize("name", sorted(FITS))
def test_the_seed_decides_and_threads_do_not(name):
    images = random_images(3, seed=1)
    expected = fitted(name)(images)
    with threadpoolctl.threadpool_limits(2):
        again = FITS[name](random_images(), seed=0, workers=3)(images)
    np.testing.assert_array_equal(again, expected)
    assert np.abs(fitted(name, seed=1)(images) - expected).max() > 0.01


@pytest.mark.parametrize("name", sorted(FITS))
def test_other_images_are_refused(name):
    for run in (FITS[name], fitted(name)):
        with pytest.raises(ValueError, match=r"uint8 \[N, H, W, 3\], got float32"):
            run(np.zeros((2, 32, 32, 3), np.float32))
        with pytest.raises(DataError, match=f"{name} needs .* got 15 x 40: use a larg"):
            run(np.zeros((1, 15, 40, 3), np.uint8))
        run(random_images(6, 16, 16))


@pytest.mark.parametrize("name", sorted(FITS))
@pytest.mark.parametrize("images", [0, 2])
def test_too_few_features_are_told_of(name, images):
    blank = np.full((images, 32, 32, 3), 90, np.uint8)
    with pytest.raises(DataError, match=rf"^{name} needs .*{COUNTED[name]}.*=\d+ "):
        FITS[name](blank)


@pytest.mark.parametrize("name", sorted(FITS))
def test_progress_sees_each_image(name):
    seen = []

    def progress(items):
        for item in items:
            seen.append(item)
            yield item

    FITS[name](random_images(), progress=progress)
    assert len(seen) == 6


def test_blank_images_have_a_row():
    blank = plain(0, 120, 255)
    np.testing.assert_array_equal(fitted("fisher")(blank), 0.0)
    words = fitted("sift_words")(blank)
    np.testing.assert_array_equal(words, np.eye(17, dtype=np.float32)[[16] * 3])
    textons = fitted("texton_pyramid")(blank)
    np.testing.assert_allclose(np.linalg.norm(textons, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(textons, textons[:1].repeat(3, axis=0), atol=1e-4)


@pytest.mark.parametrize("name", sorted(FITS))
def test_brightness_hardly_counts(name):
    images = random_images(4, seed=2) // 2
    describe = fitted(name)
    found, brighter = describe(images), describe(images + 100)
    assert np.square(found - brighter).sum(axis=1).max() < 0.01
    assert np.square(found - found[::-1]).sum(axis=1).min() > 0.04


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FITS))
def test_near_images_are_nearer(name):
    digits = datasets.load_digits()
    images = np.uint8(255 - digits.images * 15).repeat(4, axis=1).repeat(4, axis=2)
    images = np.repeat(images[..., None], 3, axis=-1)
    option = {"fisher": 8}.get(name, 64)
    learner = descriptors.DESCRIPTORS.create({"name": name, COUNTED[name]: option})
    rows = learner.fit(images[:100])(images[100:300])
    labels = digits.target[100:300]
    # Rows have unit length.
    similarities = rows @ rows.T
    np.fill_diagonal(similarities, -1.0)
    # At random one in ten would be right.
    assert np.mean(labels[similarities.argmax(axis=1)] == labels) > 0.85


def test_sift_lies_where_its_positions_say():
    image = plain(255, size=72)[0].copy()
    image[20:28, 40:44] = 0
    patches = dense_sift.dense_sift(image)
    places = (dense_sift.positions(72, 72) + 0.5) * 71
    assert patches.shape == (len(places), 128)
    assert len(places) == 18**2 + 12**2 + 6**2
    norms = np.linalg.norm(patches, axis=1)
    np.testing.assert_allclose(norms[norms > 0], 1.0, atol=1e-5)
    # Of the smallest patches, 12 pixels wide: blind beyond their corner's distance.
    gaps = np.maximum(np.abs(places - (41.5, 23.5)) - (2, 4), 0)
    far = np.linalg.norm(gaps, axis=1)[: 18**2]
    assert (norms[: 18**2][far > 20] == 0).all()
    assert (norms[: 18**2][far < 3] > 0).all()
    assert np.sum(far > 20) > 90
    assert np.sum(far < 3) > 3


def test_positions_are_centered():
    places = dense_sift.positions(50, 34).astype(np.float64)
    np.testing.assert_allclose(places.min(axis=0), -places.max(axis=0), atol=1e-6)
    # Each of the three grids on its own.
    for rows, columns, grid in ((13, 9, places[:117]), (9, 6, places[117:171])):
        np.testing.assert_allclose(grid.mean(axis=0), 0, atol=1e-6)
        assert len(np.unique(grid[:, 1])) == rows
        assert len(np.unique(grid[:, 0])) == columns
    assert len(places) == 117 + 54 + 5 * 3


def test_sift_is_that_of_opencv_rooted():
    images = random_images(1)
    rows = dense_sift.dense_sift(images[0])
    squares = np.square(rows.astype(np.float64))
    np.testing.assert_allclose(squares.sum(axis=1), 1.0, atol=1e-5)
    # An edge from dark to light to the right: its gradients point that way.
    image = plain(0)[0].copy()
    image[:, 16:] = 200
    middle = np.argmin(np.abs(dense_sift.positions(32, 32)).sum(axis=1))
    by_direction = np.square(dense_sift.dense_sift(image)[middle]).reshape(16, 8)
    assert by_direction.sum(axis=0).argmax() == 0
    assert by_direction.sum(axis=0)[0] > 0.7


def test_sift_words_count_nearest_words():
    images = random_images(3, seed=1)
    images[0, :, :24] = 255
    describe = fitted("sift_words")
    found = describe(images)
    for image, row in zip(images, found, strict=True):
        patches = dense_sift.dense_sift(image)
        counts = np.zeros(17)
        for patch in patches.astype(np.float64):
            gaps = [np.sum((patch - word) ** 2) for word in describe.words]
            counts[np.argmin(gaps) if patch.any() else 16] += 1
        assert np.count_nonzero(counts) > 8
        np.testing.assert_allclose(row, np.sqrt(counts / len(patches)), atol=1e-6)
    assert found[0, 16] > 0.3


def test_no_word_is_wasted_on_blank_patches():
    images = random_images()
    images[:, :, :32] = 255
    patches = np.concatenate([dense_sift.dense_sift(image) for image in images])
    assert np.mean(~patches.any(axis=1)) > 0.1
    words = FITS["sift_words"](images).words
    assert np.linalg.norm(words, axis=1).min() > 0.5


def test_fisher_vector_is_that_of_scikit_image():
    rng = np.random.default_rng(0)
    gmm = mixture.GaussianMixture(3, covariance_type="diag", random_state=0)
    centers = rng.normal(size=(3, 5))[rng.integers(3, size=400)]
    gmm.fit(centers + rng.normal(size=(400, 5)) * rng.uniform(0.5, 1.5, 5))
    ours = fisher.Mixture(gmm.weights_, gmm.means_, np.sqrt(gmm.covariances_))
    x = rng.normal(size=(60, 5))
    shares = ours.posteriors(x)
    np.testing.assert_allclose(shares, gmm.predict_proba(x), atol=1e-9)
    assert np.sum((shares > 0.1) & (shares < 0.9)) > 20
    by_weight, by_mean, by_deviation = np.split(feature.fisher_vector(x, gmm), [3, 18])
    assert by_weight.shape == (3,)
    # scikit-image takes the gradients by variances the other way round.
    np.testing.assert_allclose(
        ours.fisher_vector(x), np.concatenate([by_mean, -by_deviation]), atol=1e-9
    )


def test_fisher_vectors_of_images():
    images = random_images(2, seed=1)
    images[0, :, :20] = 255
    describe = fitted("fisher")
    found = describe(images)
    weights, means = describe.mixture.weights, describe.mixture.means
    assert means.shape == (4, 8 + 2)
    assert weights.sum() == pytest.approx(1.0, abs=1e-5)
    assert not dense_sift.dense_sift(images[0]).any(axis=1).all()
    for image, row in zip(images, found, strict=True):
        patches = dense_sift.dense_sift(image)
        seen = patches.any(axis=1)
        reduced = (patches - describe.mean) @ describe.axes.T
        x = np.concatenate([reduced, dense_sift.positions(32, 40)], axis=1)[seen]
        raw = describe.mixture.fisher_vector(x)
        rooted = np.sign(raw) * np.sqrt(np.abs(raw))
        np.testing.assert_allclose(row, rooted / np.linalg.norm(rooted), atol=1e-5)


def test_fisher_keeps_the_axes_of_most_variance():
    patches = np.concatenate([dense_sift.dense_sift(i) for i in random_images()])
    describe = fisher.FisherLearner(dim=4, num_gaussians=2).fit(random_images())
    np.testing.assert_allclose(describe.mean, patches.mean(axis=0), atol=1e-4)
    _, vectors = np.linalg.eigh(np.cov(patches.T.astype(np.float64)))
    overlap = np.abs(describe.axes @ vectors[:, -4:]).max(axis=1)
    np.testing.assert_allclose(overlap, 1.0, atol=1e-2)
    with pytest.raises(ConfigError, match=r"fisher\.dim must be in 1 to 128, got 129"):
        descriptors.DESCRIPTORS.create({"name": "fisher", "dim": 129})


def test_filters_are_blind_to_brightness():
    bank = texton_pyramid.filter_bank()
    assert len(bank) == 44
    for kernel in bank:
        assert kernel.sum() == pytest.approx(0.0, abs=1e-5)
        assert np.abs(kernel).sum() == pytest.approx(1.0, abs=1e-5)
        assert kernel.shape[0] == kernel.shape[1]
        assert kernel.shape[0] % 2 == 1


@pytest.mark.parametrize("orientation", range(6))
def test_filters_see_their_direction(orientation):
    angle = np.pi * orientation / 6
    y, x = np.mgrid[-20:21, -20:21]
    across = y * np.cos(angle) - x * np.sin(angle)
    for which, image in (0, np.tanh(across)), (1, -np.exp(-0.5 * across**2)):
        responses = []
        for number in range(6):
            kernel = texton_pyramid.filter_bank()[2 * number + which]
            r = len(kernel) // 2
            # cv2.filter2D correlates.
            responses.append(np.sum(image[20 - r : 21 + r, 20 - r : 21 + r] * kernel))
        assert np.abs(responses).argmax() == orientation
        assert np.abs(responses).max() > 0.1


def test_bars_change_sign_across_and_not_along():
    kernel = texton_pyramid.filter_bank()[1]
    r = len(kernel) // 2
    assert kernel[r, r] < 0
    assert kernel[r, r - 5] < 0
    assert kernel[r + 2, r] > 0
    assert kernel[r - 2, r] > 0


def test_pixels_are_shared_among_textons():
    rng = np.random.default_rng(0)
    textons = rng.normal(size=(5, 44)).astype(np.float32)
    responses = rng.normal(size=(3, 2, 44)).astype(np.float32)
    describe = texton_pyramid.TextonPyramid(np.ones(44, np.float32), textons, 0.05)
    found = describe.assign(responses)
    assert found.shape == (3, 2, 5)
    for place in np.ndindex(3, 2):
        gaps = [np.sum((responses[place] - t.astype(np.float64)) ** 2) for t in textons]
        shares = np.exp(-0.05 * np.array(gaps))
        np.testing.assert_allclose(found[place], shares / shares.sum(), atol=1e-5)
    assert np.sum((found > 0.05) & (found < 0.95)) > 10


@pytest.mark.parametrize("shape", [(32, 40), (18, 26)])
def test_cells_keep_the_largest_share(shape):
    images = random_images(2, 40, 40, seed=1)[:, : shape[0], : shape[1]]
    describe = fitted("texton_pyramid")
    found = describe(images).reshape(2, 21, 16)
    for image, row in zip(images, found, strict=True):
        responses = texton_pyramid._responses(image, describe.deviations)
        shares = describe.assign(responses)
        height, width = shares.shape[:2]
        cells = np.zeros((4, 4, 16))
        tops = np.cumsum([0] + [len(x) for x in np.array_split(range(height), 4)])
        lefts = np.cumsum([0] + [len(x) for x in np.array_split(range(width), 4)])
        for y, x in np.ndindex(height, width):
            cell = cells[np.sum(tops[1:] <= y), np.sum(lefts[1:] <= x)]
            cell[:] = np.maximum(cell, shares[y, x])
        levels = [cells.max(axis=(0, 1))[None]]
        levels += [
            np.stack(
                [
                    cells[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max(axis=(0, 1))
                    for i, j in np.ndindex(2, 2)
                ]
            )
        ]
        expected = np.sqrt(np.concatenate([*levels, cells.reshape(16, 16)]))
        np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=1e-5)
    assert found.std(axis=1).max() > 0.02


def test_features_are_drawn_from_each_image_alike():
    images = np.zeros((5, 4, 4, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(5)

    def extract(image):
        number = int(image[0, 0, 0])
        return np.array([(number, i) for i in range(2 if number == 3 else 40)], float)

    draw = functools.partial(local_features.draw_features, extract, images)
    found = draw(30, seed=0)
    np.testing.assert_array_equal(np.bincount(found[:, 0].astype(int)), [6, 6, 6, 2, 6])
    assert len(np.unique(found, axis=0)) == len(found)
    np.testing.assert_array_equal(draw(30, seed=0, workers=3), found)
    assert len(np.unique(np.concatenate([found, draw(30, seed=1)]), axis=0)) > 35
    # Images draw for themselves, not all the same.
    assert set(found[:6, 1]) != set(found[6:12, 1])


def test_of_many_images_some_are_drawn(monkeypatch):
    monkeypatch.setattr(local_features, "_NUM_IMAGES", 4)
    images = np.arange(9, dtype=np.uint8).reshape(9, 1, 1, 1)
    extract = lambda image: image.reshape(1, 1).astype(float)
    found = local_features.draw_features(extract, images, 8, seed=0)
    assert len(np.unique(found)) == 4
    other = local_features.draw_features(extract, images, 8, seed=1)
    assert not np.array_equal(found, other)


def test_words_lie_amid_their_clusters():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(4, 6)) * 10
    which = rng.integers(4, size=800)
    x = (centers[which] + rng.normal(size=(800, 6))).astype(np.float32)
    words = local_features.learn_words(x, 4, seed=0)
    nearest = local_features.nearest_words(x, words)
    means = np.stack([x[nearest == k].mean(axis=0) for k in range(4)])
    np.testing.assert_allclose(words, means, atol=0.3)
    assert not np.array_equal(words, local_features.learn_words(x, 4, seed=1))
    assert len(set(zip(which.tolist(), nearest.tolist(), strict=True))) == 4


def blas_threads():
    """Returns the limits of all BLAS libraries but FAISS's, which has one a thread."""
    return {
        x["num_threads"]
        for x in threadpoolctl.threadpool_info()
        if x["user_api"] == "blas" and "faiss" not in x["filepath"]
    }


def test_threads_are_limited_and_restored():
    seen = []

    def describe(images):
        seen.append(blas_threads())
        return fitted("sift_words")(images)

    with threadpoolctl.threadpool_limits(2, "blas"):
        assert blas_threads() == {2}
        descriptors.describe_in_threads(describe, random_images(), workers=3)
        assert seen == [{1}] * 3
        with pytest.raises(ValueError, match="uint8"):
            fitted("sift_words")(np.zeros((1, 32, 32), np.uint8))
        FITS["sift_words"](random_images(), workers=2)
        assert blas_threads() == {2}
