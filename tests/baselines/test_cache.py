import numpy as np
import pytest

from deeprank_jax.baselines import cache


@pytest.fixture
def computed():
    calls = []

    def compute():
        calls.append(1)
        return np.full((4, 3), len(calls), np.float32), np.array([1, 1, 0, 1], bool)

    compute.calls = calls
    return compute


KEY = cache.create_key("hog", 1, "4-abc", 72, seed=0)


def test_features_are_computed_once(tmp_path, computed, warnings_logged):
    folder = tmp_path / "new" / "features"
    first = cache.load_or_compute(folder, KEY, computed)
    again = cache.load_or_compute(folder, KEY, computed)
    assert len(computed.calls) == 1
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    assert not warnings_logged
    assert [path.suffix for path in folder.iterdir()] == [".npz"]


@pytest.mark.parametrize(
    "key",
    [
        cache.create_key("lbp", 1, "4-abc", 72, seed=0),
        cache.create_key("hog", 2, "4-abc", 72, seed=0),
        cache.create_key("hog", 1, "4-abd", 72, seed=0),
        cache.create_key("hog", 1, "4-abc", 48, seed=0),
        cache.create_key("hog", 1, "4-abc", 72, seed=1),
        cache.create_key("hog", 1, "4-abc", 72),
        cache.create_key("hog", 1, "4-abc", 72, fitted_on="9-aaa", seed=0),
    ],
)
def test_whatever_decides_them_is_in_the_key(tmp_path, computed, key):
    cache.load_or_compute(tmp_path, KEY, computed)
    features, _ = cache.load_or_compute(tmp_path, key, computed)
    assert features[0, 0] == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_the_order_of_options_does_not_count():
    a = cache.create_key("hog", 1, "4-abc", 72, seed=0, fit="crop")
    assert a == cache.create_key("hog", 1, "4-abc", 72, fit="crop", seed=0)


def test_without_a_folder_nothing_is_kept(computed):
    cache.load_or_compute(None, KEY, computed)
    cache.load_or_compute(None, KEY, computed)
    assert len(computed.calls) == 2


def flip_a_value(path):
    content = bytearray(path.read_bytes())
    where = content.index(np.ones((4, 3), np.float32).tobytes())
    content[where + 1] ^= 0x40
    path.write_bytes(content)


def swap(path):
    text = np.array("another")
    np.savez(path, key=text, features=np.ones((4, 3)), ok=np.ones(4, bool))


def save_plain(path):
    with path.open("wb") as file:
        np.save(file, np.ones(3))


def reshape(path):
    text = np.array(KEY.text)
    np.savez(path, key=text, features=np.ones((4, 3)), ok=np.ones(3, bool))


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_value,
        swap,
        reshape,
        lambda path: path.write_bytes(path.read_bytes()[:-40]),
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"nothing of the kind"),
        save_plain,
    ],
)
def test_a_damaged_file_is_made_anew(tmp_path, computed, warnings_logged, damage):
    cache.load_or_compute(tmp_path, KEY, computed)
    (path,) = tmp_path.iterdir()
    damage(path)
    features, _ = cache.load_or_compute(tmp_path, KEY, computed)
    assert (features == 2).all()
    (warning,) = warnings_logged
    assert warning.startswith(f"{path}: not what was written there (")
    assert warning.endswith("; computed anew.")
    features, _ = cache.load_or_compute(tmp_path, KEY, computed)
    assert (features == 2).all()
    assert len(computed.calls) == 2


def test_features_that_cannot_be_kept_are_returned(tmp_path, computed, warnings_logged):
    (tmp_path / "file").write_text("no folder")
    features, ok = cache.load_or_compute(tmp_path / "file", KEY, computed)
    assert features.shape == (4, 3)
    assert ok.sum() == 3
    (warning,) = warnings_logged
    assert "features cannot be kept (" in warning


def test_what_is_cut_off_leaves_no_file(tmp_path, computed, monkeypatch):
    def stop(file, **_):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", stop)
    with pytest.raises(KeyboardInterrupt):
        cache.load_or_compute(tmp_path, KEY, computed)
    assert list(tmp_path.iterdir()) == []


def test_bad_keys_are_refused():
    with pytest.raises(ValueError, match=r"letters, digits and _; got '../x'"):
        cache.create_key("../x", 1, "4-abc", 72)
    with pytest.raises(ValueError, match="Options of hog must be numbers"):
        cache.create_key("hog", 1, "4-abc", 72, images=np.ones(3))
