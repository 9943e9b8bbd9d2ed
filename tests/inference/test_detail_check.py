"""The comparison of details reads images again, within a limit of memory."""

import itertools

import numpy as np
from PIL import Image
import pytest

from deeprank_jax.inference import detail_check, sources


@pytest.mark.parametrize("max_sketches", [2, 100])
def test_verdicts_do_not_depend_on_the_sketches_in_memory(
    tmp_path, monkeypatch, max_sketches
):
    rng = np.random.default_rng(0)
    for kind in range(4):
        image = rng.integers(0, 256, (30, 40, 3), np.uint8)
        for copy in range(2):
            Image.fromarray(image).save(tmp_path / f"{kind}{copy}.png")
    monkeypatch.setattr(detail_check, "_MAX_SKETCHES", max_sketches)
    records = sources.open_source(tmp_path)
    check = detail_check.DetailCheck(records, np.arange(8), 10_000)
    pairs = list(itertools.combinations(range(8), 2))
    copies = [(i, j) for i, j in pairs if check(i, j)]
    assert copies == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert check._sketch.cache_info().currsize == min(8, max_sketches)
    (tmp_path / "00.png").write_bytes(b"")
    again = detail_check.DetailCheck(records, np.arange(8), 10_000)
    assert [pair for pair in pairs if again(*pair)] == copies[1:]
