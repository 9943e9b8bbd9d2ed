import io
import itertools
import math

from helpers.photo_views import FEW
import ml_collections
import numpy as np
from PIL import Image
import pytest

from deeprank_jax import data, errors
from deeprank_jax.data.sources import (
    SOURCES,
    installed,
    photo_views_builder,
    tfds,
    tfds_dataset,
)
from deeprank_jax.inference.sources import open_source


class Draws:
    """Stands for a generator: the given positions within each range, in turn.

    Of several numbers the first is at the given position, and the others in the middle.
    """

    def __init__(self, *positions):
        self._positions = iter(positions)

    def uniform(self, low, high, size=None):
        drawn = low + next(self._positions) * (high - low)
        if size is None:
            return drawn
        return np.array([drawn] + [(low + high) / 2] * (size - 1))


@pytest.fixture(scope="session")
def records(few_photos):
    config = ml_collections.ConfigDict({"source": {"name": "photo_views"}})
    config.dir = str(few_photos)
    return data.create_records(config)


def pixels(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded))).astype(int)


def gradient(width, height):
    """Returns a photograph whose red and green are 2 x and 2 y, up to 238."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([2 * x, 2 * y, 0 * x], -1).astype(np.uint8))


def draw(
    scale=0.5, angle=0.5, right=0.5, down=0.5, gamma=0.5, gain=0.5, centre=(60, 60)
):
    draws = Draws(scale, angle, right, down, gamma, gain)
    encoded = photo_views_builder._draw_view(gradient(120, 120), *centre, draws)
    return pixels(encoded)


def test_six_views_of_each_place(records):
    counts = {"train": 35, "validation": 21, "test": 40}
    for split, part in records.items():
        _, views = np.unique(part.labels[:, -1], return_counts=True)
        assert (views == 6).all()
        assert len(views) == counts[split]
        assert decode_all(part) == len(part)
    assert records["test"].label_names[0][records["test"].labels[0, 0]] == "cat"
    assert records["test"].label_name(0).startswith("cat, row ")


def decode_all(part):
    """Returns the number of different images of a split, all of 48 x 48 pixels."""
    images = {part.read(i) for i in range(len(part))}
    assert {pixels(x).shape for x in images} == {(48, 48, 3)}
    return len(images)


def test_a_region_has_three_by_three_places(records):
    train = records["train"]
    regions, places = train.labels[:, 1], train.labels[:, 2]
    _, counts = np.unique(np.unique(places * 1000 + regions) % 1000, return_counts=True)
    # 7 x 5 places without gaps: 3 x 3, 3 x 2, 1 x 3 and 1 x 2.
    assert sorted(counts) == [2, 3, 6, 6, 9, 9]


def test_views_of_a_place_do_not_depend_on_other_photographs(records, monkeypatch):
    monkeypatch.setattr(
        photo_views_builder,
        "_PHOTOS",
        {"test": FEW["train"] | FEW["test"]},
    )
    views = dict(photo_views_builder.generate_views("test"))
    images = {x["image"] for key, x in views.items() if key.startswith("cat_0_1_")}
    part = records["test"]
    rows = [i for i in range(len(part)) if part.label_name(i) == "cat, row 0, column 1"]
    assert {part.read(i) for i in rows} == images


def test_a_view_without_change_is_the_place_itself():
    y, x = np.mgrid[36:84, 36:84]
    np.testing.assert_array_equal(draw(), np.stack([2 * x, 2 * y, 0 * x], -1))


def test_a_view_from_farther_shows_more():
    near, far = draw(scale=0), draw(scale=1)
    for view, scale in ((near, 1 / 1.25), (far, 1.25)):
        red = view[..., 0]
        assert red[24, 40] - red[24, 8] == pytest.approx(2 * 32 * scale, abs=2)
        assert red[24, 24] == pytest.approx(120, abs=3)


def test_a_turned_view_keeps_its_centre():
    turned = draw(angle=1)
    assert turned[24, 24, :2] == pytest.approx(120, abs=3)
    # Ten pixels to the right are ten pixels in the direction of the turn.
    step = (turned[24, 34] - turned[24, 24])[:2] / 20
    expected = (math.cos(math.radians(15)), math.sin(math.radians(15)))
    assert step == pytest.approx(expected, abs=0.06)


def test_a_shifted_view():
    np.testing.assert_allclose(draw(right=1)[..., 0], draw()[..., 0] + 12, atol=1)
    np.testing.assert_allclose(draw(down=0)[..., 1], draw()[..., 1] - 12, atol=1)


def test_a_view_in_another_light():
    plain = draw()[..., 0]
    # At the right edge it is brighter than white, in red alone.
    edge = (96, 60)
    bright = 1.15 * draw(centre=edge)[..., 0]
    assert bright.max() > 260
    view = draw(gain=1, centre=edge)
    np.testing.assert_allclose(view[..., 0], np.minimum(bright, 255), atol=1)
    np.testing.assert_array_equal(view[..., 1], draw(centre=edge)[..., 1])
    dark = draw(gamma=1)[..., 0]
    np.testing.assert_allclose(dark, 255 * (plain / 255) ** 1.3, atol=1)


def test_every_view_lies_within_its_photograph():
    photo = Image.new("RGB", (200, 160), "white")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photo_views_builder, "_MIN_CONTRAST", 0)
        places = list(photo_views_builder._places(photo))
    assert len(places) == 3 * 2
    for _, _, x, y in places:
        for scale, angle, right, down in itertools.product((0, 1), repeat=4):
            draws = Draws(scale, angle, right, down, 0.5, 0.5)
            view = pixels(photo_views_builder._draw_view(photo, x, y, draws))
            # Beyond the edge it would be black.
            assert view.min() == 255


def test_a_place_that_shows_nothing_is_left_out():
    photo = gradient(120, 120)
    assert list(photo_views_builder._places(photo))
    assert not list(photo_views_builder._places(Image.new("RGB", (120, 120))))


def test_splits_share_no_photograph():
    names = [name for part in photo_views_builder._PHOTOS.values() for name in part]
    files = [x for part in photo_views_builder._PHOTOS.values() for x in part.values()]
    assert len(names) == len(set(names)) == len(set(files)) == 16
    for module, file in files:
        assert photo_views_builder._read_photo(module, file).mode == "RGB"


def test_own_datasets_have_a_builder_and_a_source():
    assert tuple(tfds_dataset._BUILDERS) == tfds.OWN_DATASETS
    assert SOURCES.keys() >= set(tfds.OWN_DATASETS)


def test_commands_read_it_by_name(few_photos):
    images = open_source("tfds:photo_views/test", data_dir=str(few_photos))
    assert len(images) == 240
    assert images.label_name(0).startswith("cat, row ")


def test_a_package_without_its_photographs(tmp_path, monkeypatch):
    monkeypatch.setattr(
        photo_views_builder, "package_folder", lambda *arguments: tmp_path
    )
    with pytest.raises(errors.DataError, match=r"astronaut\.png: no such file; it bel"):
        photo_views_builder._read_photo("skimage", "data/astronaut.png")


def test_a_package_that_is_not_installed():
    with pytest.raises(errors.MissingExtraError, match=r"^scikit-imaginary is not "):
        installed.package_folder("skimaginary", "scikit-imaginary", "train")
