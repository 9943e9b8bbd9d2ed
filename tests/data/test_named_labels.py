"""Labels by name, of levels and of columns, from sources and by hand."""

from helpers import shrunk
import ml_collections
import numpy as np
import pytest

from deeprank_jax import data
from deeprank_jax.data.named_labels import find_labels
from deeprank_jax.data.records import Records
from deeprank_jax.errors import DataError


def create_records(**columns):
    return Records(
        name="things/train",
        labels=np.array([[0, 0], [0, 1], [1, 2]], np.int32),
        level_names=("kind", "thing"),
        label_names=(("tool", "fruit"), ("saw", "axe", "fig")),
        read=lambda index: b"",
        describe=lambda index: f"{index}.png",
        columns={name: np.array(x, np.int32) for name, x in columns.items()},
    )


def test_a_level_has_its_names():
    labels = find_labels(create_records(), "thing", "config.x")
    assert labels.values.tolist() == [0, 1, 2]
    assert labels.names == ("saw", "axe", "fig")


def test_a_column_without_names_has_numbers():
    labels = find_labels(create_records(size=[2, 0, 2]), "size", "config.x")
    assert labels.values.tolist() == [2, 0, 2]
    assert labels.names == ("0", "1", "2")


def test_an_unknown_name_and_a_missing_label_are_named():
    records = create_records(size=[2, -1, -1])
    message = (
        r"^config\.x names 'thin' \(did you mean 'thing'\?\), but things/train has the "
        r"labels kind, thing, size; choose among them, or add it to config\.data"
    )
    with pytest.raises(DataError, match=message):
        find_labels(records, "thin", "config.x")
    with pytest.raises(DataError, match=r"2 records have no size, e\.g\. '1\.png'; "):
        find_labels(records, "size", "config.x")


def test_columns_of_a_manifest_have_the_names_of_the_file(tmp_path):
    images = shrunk.write_images(tmp_path / "images", num_classes=10, num_images=4)
    colors = ("red", "blue", "", "green")
    lines = [
        f"{path},{path.parent.name},{colors[number % 4]}"
        for number, path in enumerate(sorted(images.rglob("*.png")))
    ]
    manifest = tmp_path / "images.csv"
    manifest.write_text("\n".join(["path,level_1,color", *lines]))
    config = ml_collections.ConfigDict({"source": {"name": "manifest"}})
    config.dir = str(manifest)
    for part in data.create_records(config).values():
        with pytest.raises(DataError, match="records have no color"):
            find_labels(part, "color", "config.x")
        names = [part.column_names["color"][x] if x >= 0 else ""
                 for x in part.columns["color"]]  # fmt: skip
        expected = [colors[int(part.describe(i)[-5]) % 4] for i in range(len(part))]
        assert names == expected
