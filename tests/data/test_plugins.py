"""Data sources as plug-ins."""

from helpers.own_images import create_pool
import ml_collections
import pytest

from deeprank_jax import data, errors
from deeprank_jax.data import splits


@pytest.fixture
def register(monkeypatch):
    kinds = dict(data.SOURCES._kinds)
    monkeypatch.setattr(data.SOURCES, "_kinds", kinds)
    return data.register_source


def create_config(directory="", **source):
    return ml_collections.ConfigDict({"source": source, "dir": directory})


def test_a_registered_source_gets_its_options_and_the_directory(register):
    @register("shapes")
    def create_shapes(directory=None, *, per_class=6):
        names = [f"{directory}/{i}" for i in range(8)]
        return splits.split_by_class_hash(create_pool(names, per_class), names)

    records = data.create_records(create_config("here", name="shapes", per_class=9))
    assert set(records) == {"train", "validation", "test"}
    assert sum(map(len, records.values())) == 72
    assert records["train"].label_names[0][0] == "here/0"
    # Its directory has a default, so none is required.
    assert data.create_records(create_config(name="shapes"))
    assert data.dataset_name(create_config(name="shapes")) == "shapes"
    with pytest.raises(
        errors.ConfigError, match=r"per_clas is not an option of 'shapes' \(did you"
    ):
        data.create_records(create_config(name="shapes", per_clas=9))


def test_a_source_without_a_default_directory_needs_one(register):
    register("listed")(lambda directory: {"train": directory})
    assert data.create_records(create_config("x", name="listed")) == {"train": "x"}
    with pytest.raises(errors.ConfigError, match=r"data\.dir is not set; .* listed"):
        data.create_records(create_config(name="listed"))


def test_an_unknown_source_gets_the_nearest_name():
    with pytest.raises(errors.ConfigError, match=r"did you mean 'manifest'\?"):
        data.create_records(create_config(name="manifst"))


def test_a_dataset_needs_a_name():
    message = r"name='tfds' needs config\.data\.source\.dataset: name in TFDS"
    with pytest.raises(errors.ConfigError, match=message):
        data.create_records(create_config(name="tfds"))
    config = create_config(name="tfds", dataset="cub")
    assert data.dataset_name(config) == "cub"
