"""What the table learns from, chooses by and measures is each of a split of its own."""

import numpy as np
import pytest
import shrunk

from configs import folder
from deeprank_jax.baselines.systems import System
from tools.paper import dataset


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    directory = tmp_path_factory.mktemp("table")
    images = shrunk.write_images(directory / "photos", num_classes=14, num_images=8)
    config = shrunk.shrink(folder.get_config())
    config.data.dir = str(images)
    return dataset.create_table(config, directory / "runs")


def split_of(table, triplets):
    return {
        name
        for name, rows in table.rows.items()
        if np.any((triplets >= rows.start) & (triplets < rows.stop))
    }


def test_settings_are_chosen_on_validation_and_oasis_learns_from_training(table):
    assert {*table.rows} == {"train", "validation", "test"}
    assert split_of(table, table.judged) == {"validation"}
    assert split_of(table, np.concatenate(table.training_triplets())) == {"train"}
    labels = np.concatenate([x.labels[:, -1] for x in table.splits.values()])
    for triplets in table.judged, table.training_triplets()[0]:
        anchor, positive, negative = labels[triplets].T
        assert np.all((anchor == positive) & (anchor != negative))


def test_test_alone_is_measured(table):
    rows = table.rows["test"]
    num = sum(map(len, table.splits.values()))
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(num, 4)).astype(np.float32)
    ok = rng.random(num) < 0.9
    queries = rng.normal(size=(num, 4)).astype(np.float32)
    found = table.measure(System(embeddings=embeddings, ok=ok, queries=queries))
    own = [x[rows] for x in (embeddings, ok, queries)]
    expected = table.test.scores(*own)
    assert found.keys() == expected.keys()
    for name, scores in found.items():
        np.testing.assert_array_equal(scores.values, expected[name].values)
