"""`tools.benchmark quality` compares what it says, with small sizes."""

import argparse
import json
import sys

from helpers import shrunk
import numpy as np
import pytest

from deeprank_jax.errors import ConfigError, DataError
from tools.benchmark import quality


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality")
    images = shrunk.write_images(folder / "images", num_classes=12)
    config = folder / "small.py"
    values = {**shrunk.VALUES, "data.dir": str(images)}
    del values["model.trunk.widths"]  # The peers have those of base.py.
    config.write_text(
        "from deeprank_jax.config import apply_overrides\n"
        "from deeprank_jax.configs import base\n"
        "def get_config():\n"
        "    config = base.get_config()\n"
        f"    apply_overrides(config, {[(k, str(v)) for k, v in values.items()]!r})\n"
        "    return config\n"
    )
    return argparse.Namespace(
        config=str(config), out=folder / "out", overrides=[], torch_python="another"
    )


@pytest.mark.full  # Trains five times.
def test_ours_is_measured_beside_each_peer(options, monkeypatch, capsys):
    cases = []
    monkeypatch.setattr(quality, "_SEEDS", (0, 1))

    def fake(case, python):
        """Theirs is not installed here: embeds at random."""
        assert python == "another"
        cases.append(case)
        with np.load(case["images"]) as file:
            num_images = len(file["test"])
            assert file["train"].dtype == np.uint8
            assert file["train"].shape[1:] == (16, 16, 3)
            assert set(file["labels"]) == set(range(file["labels"].max() + 1))
        embeddings = np.random.default_rng(case["seed"]).normal(size=(num_images, 8))
        np.savez(case["out"], case=json.dumps(case), embeddings=embeddings, seconds=2.0)

    monkeypatch.setattr(quality, "_train_peer", fake)
    values = quality.measure(options)
    assert [(case["loss"], case["seed"]) for case in cases] == [
        (peer, seed) for peer in quality.PEERS for seed in (0, 1)
    ]
    # As many images a step as our 8 triplets have.
    assert {(x["num_classes"], x["per_class"], x["steps"]) for x in cases} == {
        (6, 4, 8)
    }
    results = [
        json.loads((options.out / "ours" / f"seed_{seed}" / "results.json").read_text())
        for seed in (0, 1)
    ]
    for name, metric in (("recall_at_1", "recall@1"), ("map_at_r", "map@r")):
        expected = np.mean([x["test"]["retrieval"][metric]["model"] for x in results])
        assert values[f"{name}_ours"] == pytest.approx(expected)
        assert values[f"{name}_best_peer"] < values[f"{name}_ours"]
        difference = values[f"{name}_ours"] - values[f"{name}_best_peer"]
        ends = [values[f"{name}_difference_{end}"] for end in ("low", "high")]
        assert ends[0] < difference < ends[1]
    assert values["seconds_supcon"] == 2.0
    assert values["seconds_ratio"] == pytest.approx(values["seconds_ours"] / 2.0)
    assert "similarity_precision" in capsys.readouterr().out
    assert json.loads(json.dumps(values)) == values
    # A second call finds everything.
    monkeypatch.undo()
    monkeypatch.setattr(quality, "_SEEDS", (0, 1))
    assert quality.measure(options) == values
    # A peer with other settings is not taken for this one.
    with pytest.raises(
        DataError, match=r"supcon_0\.npz was trained with other settings"
    ):
        quality._train_peer({**cases[0], "steps": 9}, "another")


@pytest.mark.parametrize(
    "override", ["model.trunk.widths=(4,8)", "model.trunk.name=alexnet"]
)
def test_another_network_than_the_peers_is_refused(options, override):
    refused = argparse.Namespace(**{**vars(options), "overrides": [override]})
    with pytest.raises(ConfigError, match="is not the network that the peers have"):
        quality.measure(refused)


def test_a_peer_that_fails_says_what_to_install(capfd):
    case = {"loss": "supcon", "seed": 0, "out": "not there"}
    with pytest.raises(RuntimeError, match="--torch_python=PATH"):
        quality._train_peer(case, sys.executable)
