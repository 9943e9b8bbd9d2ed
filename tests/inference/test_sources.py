"""Lists of images whose labels are in a column of their own name."""

import pytest

from deeprank_jax.errors import DataError
from deeprank_jax.inference.sources import open_source


def test_labels_come_from_the_named_column(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("path,label,species\na.png,x,wren\nb.png,y,robin\n")
    names = lambda records: [records.label_name(i) for i in range(2)]
    assert names(open_source(path)) == ["x", "y"]
    assert names(open_source(path, label_feature="species")) == ["wren", "robin"]
    with pytest.raises(
        DataError, match=r"has no column 'sort'; give .* path, label, s"
    ):
        open_source(path, label_feature="sort")
