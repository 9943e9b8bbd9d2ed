"""An exported model takes images in whatever form they come."""

import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

import deeprank_jax
from deeprank_jax import errors
from deeprank_jax.data import decode as decode_lib
from deeprank_jax.inference.model import BATCH_SIZE, Comparison, decode


@pytest.fixture(scope="module")
def model(exported):
    return deeprank_jax.load(exported)


@pytest.fixture
def path(photos):
    return sorted(photos.rglob("*.png"))[0]


def test_paths_bytes_pil_images_and_arrays_are_one(model, path):
    pixels = np.asarray(Image.open(path).convert("RGB"))
    forms = [path, str(path), path.read_bytes(), Image.open(path), pixels]
    wanted = model.embed(path)
    assert wanted.shape == (1, model.embedding_dim)
    assert wanted.dtype == np.float32
    for form in forms:
        np.testing.assert_array_equal(model.embed(form), wanted)
    np.testing.assert_array_equal(model.embed(forms), np.repeat(wanted, 5, axis=0))
    np.testing.assert_array_equal(model.embed(pixels[None]), wanted)
    on_device = jnp.asarray(pixels)
    for form in (on_device, on_device[None], [on_device]):
        np.testing.assert_array_equal(model.embed(form), wanted)
    assert model.embed([]).shape == (0, model.embedding_dim)


def test_every_batch_size_gives_the_same(model, photos):
    paths = sorted(photos.rglob("*.png"))
    assert len(paths) > BATCH_SIZE
    together = model.embed(paths)
    alone = np.concatenate([model.embed(path) for path in paths])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert len(np.unique(together.round(5), axis=0)) > 30


def test_pil_images_keep_orientation_alpha_and_depth():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 4, 3), np.uint8)
    turned = Image.fromarray(pixels)
    turned.getexif()[0x0112] = 3
    np.testing.assert_array_equal(decode(turned, ""), pixels[::-1, ::-1])
    clear = Image.fromarray(np.zeros((2, 2, 4), np.uint8))
    assert (decode(clear, "") == 255).all()
    palette = Image.new("P", (2, 2))
    palette.info["transparency"] = 0
    assert (decode(palette, "") == 255).all()
    deep = Image.fromarray(np.full((2, 2), 257 * 9, np.uint16))
    assert (decode(deep, "") == 9).all()
    grey = Image.fromarray(pixels[..., 0])
    np.testing.assert_array_equal(decode(grey, "")[..., 1], pixels[..., 0])


def test_what_is_no_image_is_named(model, path, tmp_path):
    text = tmp_path / "notes.jpg"
    text.write_text("not an image")
    with pytest.raises(
        decode_lib.BadImageError, match=r"notes\.jpg: not an image .*; give an"
    ):
        model.embed([path, text])
    with pytest.raises(decode_lib.BadImageError, match=r"gone\.jpg: cannot be read"):
        model.embed(tmp_path / "gone.jpg")
    with pytest.raises(decode_lib.BadImageError, match="image 0: is a NoneType"):
        model.embed(None)
    with pytest.raises(decode_lib.BadImageError, match="image 1: has the type float"):
        model.embed([np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3))])


def test_two_images_are_compared(model, photos):
    one, other = sorted(photos.rglob("*.png"))[:: len(list(photos.rglob("*.png"))) - 1]
    found = model.compare(one, other)
    a, b = model.embed([one, other])
    assert found.distance == pytest.approx(np.sum((a - b) ** 2), rel=1e-5)
    assert found.cosine == pytest.approx(a @ b, abs=1e-6)
    assert found.threshold == model.artifact.info["threshold"]["distance"]
    assert model.cluster_distance == model.artifact.info["cluster_distance"]
    same = model.compare(one, one)
    assert (same.distance, same.is_similar) == (0.0, True)
    assert same.cosine == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("threshold", "is_similar", "text"),
    [
        (0.5, True, "similar: squared distance 0.3000 (threshold 0.5000), cosine"),
        (0.3, True, "similar: "),
        (0.2, False, "not similar: squared distance 0.3000 (threshold 0.2000)"),
        (None, None, "no verdict: squared distance 0.3000, cosine 0.8500"),
    ],
)
def test_a_comparison_is_one_line(threshold, is_similar, text):
    found = Comparison(distance=0.3, cosine=0.85, threshold=threshold)
    assert found.is_similar is is_similar
    assert str(found).startswith(text)


def test_an_altered_model_is_refused(exported, tmp_path):
    with pytest.raises(ValueError, match="there is no such folder"):
        deeprank_jax.load(tmp_path / "nowhere")


def test_a_model_with_weights_that_are_not_finite_is_refused(exported, path):
    model = deeprank_jax.load(exported)
    model._weights = {
        name: np.full_like(values, np.nan) for name, values in model._weights.items()
    }
    with pytest.raises(errors.ArtifactError, match="embeddings that are not finite"):
        model.embed(path)
    with pytest.raises(errors.ArtifactError, match=f"{exported}: "):
        model.compare(path, path)
