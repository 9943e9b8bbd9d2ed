"""The picture of the README is a search among pieces of photographs."""

import numpy as np
from PIL import Image
import pytest
import skimage.data

from tools.docs import photo_search


@pytest.mark.parametrize("name", photo_search.PICTURES)
def test_pieces_are_of_their_picture(tmp_path, monkeypatch, name):
    monkeypatch.setattr(photo_search, "PICTURES", {name: photo_search.PICTURES[name]})
    photo_search.write_pieces(tmp_path)
    pieces = [np.asarray(Image.open(x)) for x in sorted(tmp_path.rglob("*.jpg"))]
    assert len({x.shape for x in pieces}) == 1
    rows = [np.concatenate(pieces[i : i + 3], axis=1) for i in (0, 3, 6)]
    whole = np.concatenate(rows).astype(np.float32)
    function = {"cat": "chelsea", "galaxies": "hubble_deep_field"}.get(name, name)
    picture = np.asarray(getattr(skimage.data, function)(), np.float32)
    picture = picture if picture.ndim == 3 else np.stack([picture] * 3, axis=-1)
    top, left = ((picture.shape[i] - whole.shape[i]) // 2 for i in (0, 1))
    cut = picture[top : top + whole.shape[0], left : left + whole.shape[1], :3]
    assert np.abs(cut - whole).mean() < 12


def test_the_query_is_one_of_the_pieces(tmp_path):
    photo_search.write_pieces(tmp_path)
    assert (tmp_path / photo_search.QUERY).exists()
