"""Maps of where two images are similar, of models whose embeddings are known."""

from helpers.cells import SIZE, Cells, draw_cells
import numpy as np
import pytest

from deeprank_jax.data.decode import BadImageError
from deeprank_jax.inference import similarity_maps
from deeprank_jax.inference.model import Model


def cell_means(values):
    return values.reshape(4, 8, 4, 8).mean(axis=(1, 3))


def test_what_both_have_is_warm_and_what_one_has_is_cold():
    one, other = draw_cells((0, 0), (3, 3)), draw_cells((0, 0), (0, 3))
    (maps,) = similarity_maps.find_maps(Cells(), one, [other])
    assert maps.cosine == pytest.approx(0.5)
    for values, alone in ((maps.one, (3, 3)), (maps.other, (0, 3))):
        assert values.shape == (SIZE, SIZE)
        cells = cell_means(values)
        assert np.unravel_index(cells.argmax(), cells.shape) == (0, 0)
        assert np.unravel_index(cells.argmin(), cells.shape) == alone
        assert cells[0, 0] > 0.05
        assert cells[alone] < -0.01


def test_a_value_is_the_fall_where_a_window_covers_the_whole_image(monkeypatch):
    monkeypatch.setattr(similarity_maps, "_NUM_WINDOWS", 1)
    monkeypatch.setattr(similarity_maps, "_SHARE", 9.0)
    one, other = draw_cells((0, 0)), draw_cells((0, 0), (0, 3))
    (maps,) = similarity_maps.find_maps(Cells(), one, [other])
    # Filled with its mean colour, an image has 16 equal cells.
    plain = np.ones(16) / 4
    beside = {"one": np.array([1, 1]) / 2**0.5, "other": np.array([1])}
    for name, cells in beside.items():
        fall = 0.5**0.5 - cells.sum() * plain[0]
        np.testing.assert_allclose(getattr(maps, name), fall, atol=1e-3)


def test_each_pair_is_as_if_it_were_alone():
    query, others = (
        draw_cells((1, 1)),
        [draw_cells((1, 1), (2, 2)), draw_cells((1, 1), (0, 0), (0, 1))],
    )
    together = similarity_maps.find_maps(Cells(), query, others)
    for pair, other in zip(together, others, strict=True):
        (alone,) = similarity_maps.find_maps(Cells(), query, [other])
        np.testing.assert_array_equal(pair.one, alone.one)
        np.testing.assert_array_equal(pair.other, alone.other)


def test_images_of_a_few_pixels_have_maps(monkeypatch):
    small = dict(Cells.preprocessing, image_size=4)
    monkeypatch.setattr(Cells, "preprocessing", small)
    embed = lambda self, images: images.reshape(len(images), -1) + 1.0
    monkeypatch.setattr(Cells, "embed_prepared", embed)
    (maps,) = similarity_maps.find_maps(
        Cells(), draw_cells((0, 0)), [draw_cells((1, 1))]
    )
    assert maps.one.shape == (4, 4)
    assert np.isfinite(maps.one).all()


def test_progress_and_a_model(exported, photos):
    paths = sorted(photos.rglob("*.png"))[:2]
    reports = []
    model = Model(exported)
    similarity_maps.find_maps(
        model, paths[0], paths[1:], progress=lambda *report: reports.append(report)
    )
    assert reports == [(i, 2, "hide parts") for i in range(3)]
    maps = model.similarity_maps(*paths)
    assert maps.cosine == pytest.approx(model.compare(*paths).cosine, abs=1e-6)
    assert maps.one.shape == (model.image_size, model.image_size)
    # Most of the image is still there, so that the cosine is much the same.
    assert 0 < np.abs(maps.one).max() < 1


def test_an_image_that_cannot_be_read_is_named(exported, photos, tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"no image")
    with pytest.raises(BadImageError, match=str(path)):
        Model(exported).similarity_maps(path, sorted(photos.rglob("*.png"))[0])
