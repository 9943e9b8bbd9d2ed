"""The YAML front matter by which model hubs list a model."""

import json
import math

import pytest
import yaml

from deeprank_jax.cli import __main__
from deeprank_jax.configs import emoji, folder
from deeprank_jax.distributed import backend
from deeprank_jax.export import hub_card

METRICS = {
    "retrieval": {
        "recall@1": {"model": 0.75, "pixels": 0.5},
        "map@r": {"model": math.nan},
        "num_queries": {"model": 50},
    },
    "triplets": {"precision": {"model": 1, "pixels": 0.5}},
}


def create_info(**values):
    info = {
        "name": "photos",
        "network": "efficientnet_lite0",
        "agreement": {"stablehlo": 1e-7, "dim": 8, "images": 9},
        "metrics": METRICS,
        "dataset": {"name": "folder", "train_images": 9, "test_images": 5},
        "checkpoint_step": 100,
    }
    return {**info, **values}


def read(card):
    """Returns the parsed front matter and the rest of a card."""
    start, text, rest = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(text), rest


def test_the_metrics_are_those_of_the_model():
    content, _ = read(
        hub_card.front_matter(create_info(), folder.get_config(), "apache-2.0")
    )
    assert content["library_name"] == "deeprank-jax"
    assert content["license"] == "apache-2.0"
    assert content["pipeline_tag"] == "image-feature-extraction"
    assert content["base_model"] == "efficientnet_lite0"
    assert "image-similarity" in content["tags"]
    assert "onnx" not in content["tags"]
    (model,) = content["model-index"]
    assert model["name"] == "photos"
    (result,) = model["results"]
    assert result["task"]["type"] == "image-feature-extraction"
    assert result["dataset"] == {"name": "folder", "type": "folder", "split": "test"}
    # Neither a count nor a number that is none.
    assert result["metrics"] == [
        {"type": "recall@1", "name": "retrieval: recall@1", "value": 0.75},
        {"type": "precision", "name": "triplets: precision", "value": 1},
    ]


def test_what_is_not_known_is_left_out():
    info = create_info(metrics={}, agreement={"stablehlo": 0, "onnx": 0})
    content, _ = read(hub_card.front_matter(info, emoji.get_config(), "unknown"))
    assert "onnx" in content["tags"]
    assert content.keys() == {"library_name", "license", "pipeline_tag", "tags"}
    network = "efficientnet_lite0 beside convnet"
    info = create_info(metrics={}, checkpoint_step=None, network=network)
    content, _ = read(hub_card.front_matter(info, folder.get_config(), "unknown"))
    assert content["base_model"] == "efficientnet_lite0"
    dataset = {"name": "folder", "validation_images": 5}
    content, _ = read(
        hub_card.front_matter(
            create_info(dataset=dataset), folder.get_config(), "unknown"
        )
    )
    (result,) = content["model-index"][0]["results"]
    assert result["dataset"]["split"] == "validation"


@pytest.mark.parametrize(
    "name",
    ["yes", "1e3", "a: b # c", "- x", '"', "\\", "鳥 😀", "a\nb: c", "---", "{x}",
     "\x1b[31m", "\u2028", "null", "@a", "%", "*x", "!t"],
)  # fmt: skip
def test_a_name_stays_a_text(name):
    content, _ = read(
        hub_card.front_matter(create_info(name=name), folder.get_config(), name)
    )
    shown = content["model-index"][0]["name"]
    assert shown == content["license"]
    assert shown == name or (not name.isprintable() and "\\" in shown)


def test_the_command_writes_it_on_request(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "keep_compiled", lambda: None)
    words = ["export", f"--workdir={trained}"]
    __main__.main(
        [*words, f"--out={tmp_path / 'model'}", "--hub_card", "--license=mit"]
    )
    content, rest = read((tmp_path / "model" / "README.md").read_text())
    assert content["license"] == "mit"
    assert "base_model" not in content  # From random weights.
    results = json.loads((trained / "results.json").read_text())["test"]
    metrics = content["model-index"][0]["results"][0]["metrics"]
    assert metrics[0]["value"] == results["retrieval"]["recall@1"]["model"]
    assert rest.startswith("\n# small\n")
    with pytest.raises(SystemExit) as exit_info:
        __main__.main([*words, f"--out={tmp_path / 'other'}", "--license=mit"])
    assert exit_info.value.code == 2


def test_a_card_begins_with_its_title_without_a_hub(exported):
    assert (exported / "README.md").read_text().startswith("# small\n")
