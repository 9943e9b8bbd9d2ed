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


def test_the_labels_of_a_folder_or_text_list_have_no_column(tmp_path):
    (tmp_path / "list.txt").write_text("a.png")
    for source in (tmp_path, tmp_path / "list.txt"):
        with pytest.raises(DataError, match="--label_feature=species is for a"):
            open_source(source, label_feature="species")
