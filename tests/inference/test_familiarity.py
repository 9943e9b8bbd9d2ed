"""Queries that are unlike all images of training get no verdict."""

import re

from helpers import hostile_models
from helpers.hostile_models import INFO, changed, write_model
import numpy as np
from PIL import Image
import pytest
import safetensors.numpy

import deeprank_jax
from deeprank_jax.cli import __main__
from deeprank_jax.distributed import backend
from deeprank_jax.errors import ArtifactError
from deeprank_jax.export import export_run
from deeprank_jax.inference import artifact, familiarity

BLUE, NAVY, LEMON = (40, 60, 160), (25, 40, 140), (250, 230, 40)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setattr(backend, "keep_compiled", lambda: None)


def pack(rows):
    return safetensors.numpy.save({"embeddings": np.asarray(rows, np.float32)})


@pytest.fixture
def model(tmp_path):
    """Model of the mean colour, trained on blue images, whose verdicts are generous."""
    info = {
        **INFO,
        "threshold": {"distance": 1e6},
        "cluster_distance": 1e6,
        "familiar": {"distance": 2_000.0, "images": 1, "validation_images": 30},
    }
    rows = [[*BLUE, 0]]
    return write_model(tmp_path / "model", info=info, references=pack(rows))


@pytest.fixture
def draw(tmp_path):
    def draw(name, color):
        path = tmp_path / "photos" / "trousers" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), color).save(path)
        return path

    return draw


def test_the_limit_is_a_quantile_of_validation(tmp_path):
    rng = np.random.default_rng(0)
    references = rng.normal(size=(50, 6)).astype(np.float32)
    validation = rng.normal(size=(200, 6)).astype(np.float32)
    entry = familiarity.write_references(tmp_path, references, validation)
    squares = ((validation[:, None] - references) ** 2).sum(-1).min(1)
    assert entry["distance"] == pytest.approx(np.quantile(squares, 0.99), rel=1e-5)
    known = familiarity.Familiarity(tmp_path / familiarity.FILE, entry, 6)
    np.testing.assert_array_equal(
        known.is_unfamiliar(validation), squares > entry["distance"]
    )
    assert known.is_unfamiliar(validation).sum() == 2
    assert not known.is_unfamiliar(references).any()
    assert known.is_unfamiliar(references[:1] + 100).all()
    few = tmp_path / "few"
    few.mkdir()
    assert familiarity.write_references(few, references, validation[:29]) is None
    assert not [*few.iterdir()]


@pytest.mark.slow
def test_a_lemon_among_trousers_is_framed_by_nothing(model, draw, tmp_path, capsys):
    trousers = [draw(str(i), (40 + i, 60, 160)) for i in range(4)]
    lemon = tmp_path / "lemon.png"
    draw("lemon", LEMON).rename(lemon)
    index, page = tmp_path / "trousers.index", tmp_path / "page.html"
    __main__.main(
        ["index", str(tmp_path / "photos"), f"--model={model}", f"--out={index}"]
    )
    words = {
        "search": [f"--index={index}"],
        "rank": [str(tmp_path / "photos"), f"--model={model}"],
    }
    for command, options in words.items():
        for image, is_unfamiliar in ((lemon, True), (trousers[0], False)):
            query = [f"--image={image}"] if command == "rank" else [str(image)]
            capsys.readouterr()
            __main__.main([command, *query, *options, f"--out={page}"])
            assert ("unlike all images of training" in capsys.readouterr().out) == (
                is_unfamiliar
            )
            text = page.read_text()
            assert bool(re.search('class="(near|far)"', text)) != is_unfamiliar
            assert ("framed green" in text) != is_unfamiliar
            assert ("(the query is unlike all images of" in text) == is_unfamiliar


def test_a_comparison_with_an_unfamiliar_image_has_no_verdict(model, draw):
    names = [str(draw(name, color)) for name, color in (
        ("blue", BLUE), ("navy", NAVY), ("lemon", LEMON), ("white", (255, 255, 255)),
    )]  # fmt: skip
    blue, navy, lemon, white = names
    model = deeprank_jax.load(model)
    assert model.compare(blue, navy).is_similar
    reasons = {
        (blue, lemon): "the second image is",
        (lemon, blue): "the first image is",
        (lemon, white): "both images are",
    }
    for pair, reason in reasons.items():
        comparison = model.compare(*pair)
        assert comparison.is_similar is None
        assert str(comparison).startswith("no verdict: squared distance ")
        assert str(comparison).endswith(f"; {reason} unlike all images of training")


@pytest.mark.parametrize(
    ("references", "info", "match"),
    [
        (b"x", {}, "reference.safetensors cannot be read"),
        (safetensors.numpy.save({"x": np.zeros(3)}), {}, "reference.*cannot be read"),
        (pack([[1.0, 2.0]]), {}, "holds no finite embeddings of 4 dimensions"),
        (pack(np.zeros((0, 4))), {}, "holds no finite embeddings of 4 dimensions"),
        (pack([[np.nan] * 4]), {}, "holds no finite embeddings of 4 dimensions"),
        (None, {}, "reference.safetensors"),
        (pack(np.zeros((1, 4))), {"distance": "a"}, "familiar.distance is 'a', expec"),
        (pack(np.zeros((1, 4))), {"distance": None}, "familiar.distance is None, exp"),
    ],
)  # fmt: skip
def test_references_of_strangers_are_checked(tmp_path, references, info, match):
    entry = {"distance": 1.0, "images": 1, "validation_images": 30, **info}
    info = changed("familiar", entry)
    path = write_model(tmp_path / "model", info=info, references=references)
    with pytest.raises(ArtifactError, match=match):
        deeprank_jax.load(path)


def test_a_model_of_an_earlier_version_does_not_know(tmp_path, draw):
    model = deeprank_jax.load(hostile_models.write_model(tmp_path / "model"))
    result = model.search(str(draw("lemon", LEMON)), [str(draw("blue", BLUE))])
    assert result.is_unfamiliar is None


def test_an_export_writes_what_is_familiar(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(familiarity, "MIN_IMAGES", 1)
    path = export_run(trained, tmp_path / "model", force_threshold=True)
    entry = artifact.read_artifact(path).info["familiar"]
    model = deeprank_jax.load(path)
    assert model.familiarity.distance == entry["distance"] > 0
    assert 10 < entry["images"] <= familiarity.NUM_REFERENCES
    assert f"farther than {entry['distance']:.4f}" in (path / "README.md").read_text()
