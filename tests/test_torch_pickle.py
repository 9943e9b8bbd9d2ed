"""The files are written here by hand, byte by byte: torch is not installed."""

import collections
import io
import os
import pickle
import struct
import sys
import types
import zipfile

import ml_dtypes
import numpy as np
import pytest

from deeprank_jax.models.torch_pickle import WeightsError, read_torch

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
NAMES = {
    "<f8": "DoubleStorage",
    "<f4": "FloatStorage",
    "<f2": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "<i8": "LongStorage",
    "<i4": "IntStorage",
    "|i1": "CharStorage",
    "|u1": "ByteStorage",
    "|b1": "BoolStorage",
}


@pytest.fixture
def torch(monkeypatch):
    """Empty modules of torch's names, so that pickle writes those names."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2(*args):
        raise AssertionError("reading must not call what is importable")

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    for name in NAMES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    torch._utils = utils
    return torch


class Storage:
    def __init__(self, numbers):
        self.numbers = np.asarray(numbers).ravel()
        self.key = str(id(self))


class Tensor:
    """A view of a storage, written as torch writes it."""

    def __init__(self, storage, shape, strides, offset=0, hooks=None):
        self.args = (storage, offset, shape, strides, False, hooks or {})

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.args


def tensor(array):
    array = np.asarray(array)
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return Tensor(Storage(array), array.shape, strides)


class Pickler(pickle.Pickler):
    def __init__(self, file, protocol=2):
        super().__init__(file, protocol)
        self.storages = {}

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        self.storages[obj.key] = obj
        dtype = obj.numbers.dtype
        kind = NAMES["bfloat16" if dtype == ml_dtypes.bfloat16 else dtype.str]
        kind = getattr(sys.modules["torch"], kind)
        size = len(obj.numbers)
        legacy = (None,) if self.legacy else ()
        return ("storage", kind, obj.key, "cpu", size, *legacy)


def write_legacy(path, content, *, headers=(MAGIC, PROTOCOL, SYSTEM), protocol=2):
    file = io.BytesIO()
    for header in headers:
        pickle.dump(header, file, 2)
    pickler = Pickler(file, protocol)
    pickler.legacy = True
    pickler.dump(content)
    pickle.dump(sorted(pickler.storages), file, 2)
    for _, storage in sorted(pickler.storages.items()):
        file.write(struct.pack("<q", len(storage.numbers)))
        file.write(storage.numbers.tobytes())
    path.write_bytes(file.getvalue())


def write_zip(path, content, *, byteorder=b"little", protocol=2, compress=False):
    file = io.BytesIO()
    pickler = Pickler(file, protocol)
    pickler.legacy = False
    pickler.dump(content)
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("archive/data.pkl", file.getvalue())
        archive.writestr("archive/byteorder", byteorder)
        for key, storage in pickler.storages.items():
            archive.writestr(f"archive/data/{key}", storage.numbers.tobytes())
        archive.writestr("archive/version", b"3\n")


WRITERS = pytest.mark.parametrize("write", [write_legacy, write_zip])


@WRITERS
def test_every_type_comes_back(tmp_path, torch, write):
    content = collections.OrderedDict(
        (name, tensor(np.asarray([[0, 1], [1, 3]], dtype)))
        for name, dtype in [
            ("f8", np.float64),
            ("f4", np.float32),
            ("f2", np.float16),
            ("bf", ml_dtypes.bfloat16),
            ("i8", np.int64),
            ("i4", np.int32),
            ("i1", np.int8),
            ("u1", np.uint8),
            ("b1", np.bool_),
        ]
    )
    content["scalar"] = tensor(np.int64(7))
    content["empty"] = tensor(np.zeros((0, 3), np.float32))
    # A state_dict carries its modules' versions as an attribute.
    content._metadata = {"": {"version": 1}}
    write(tmp_path / "x.pth", content)
    arrays = read_torch(tmp_path / "x.pth")
    assert list(arrays) == list(content)
    assert arrays.pop("scalar") == 7
    assert arrays.pop("empty").shape == (0, 3)
    for name, array in arrays.items():
        one = True if name == "b1" else 3
        assert array.tolist() == [[0, 1], [1, one]], name
        wanted = {"f2": "f4", "bf": "f4"}.get(name, name)
        assert array.dtype == ("bool" if name == "b1" else wanted)


@WRITERS
def test_views_follow_strides_offsets_and_shared_storages(tmp_path, torch, write):
    numbers = np.arange(24, dtype=np.float32)
    shared = Storage(numbers)
    write(
        tmp_path / "x.pth",
        {
            "plain": Tensor(shared, (4, 6), (6, 1)),
            "transposed": Tensor(shared, (6, 4), (1, 6)),
            "tail": Tensor(shared, (2, 3), (3, 1), offset=18),
            "channels_last": Tensor(shared, (2, 3, 2, 2), (12, 1, 6, 3)),
        },
    )
    arrays = read_torch(tmp_path / "x.pth")
    grid = numbers.reshape(4, 6)
    np.testing.assert_array_equal(arrays["plain"], grid)
    np.testing.assert_array_equal(arrays["transposed"], grid.T)
    np.testing.assert_array_equal(arrays["tail"], [[18, 19, 20], [21, 22, 23]])
    np.testing.assert_array_equal(
        arrays["channels_last"], numbers.reshape(2, 2, 2, 3).transpose(0, 3, 1, 2)
    )
    # They share memory, so that writing to one would change another.
    assert np.shares_memory(arrays["plain"], arrays["tail"])
    with pytest.raises(ValueError, match="read-only"):
        arrays["plain"][0] = 1


@pytest.mark.parametrize("protocol", [2, 3, 4])
@WRITERS
def test_every_protocol_of_pickle_is_read(tmp_path, torch, write, protocol):
    write(tmp_path / "x.pth", {"a": tensor(np.eye(2))}, protocol=protocol)
    np.testing.assert_array_equal(read_torch(tmp_path / "x.pth")["a"], np.eye(2))


class Call:
    """Makes pickle write a call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def touch(path):
    return Call(os.system, f"touch {path}")


def assert_refused(path, name):
    with pytest.raises(WeightsError, match=f"x.pth names {name}, which is no part"):
        read_torch(path)
    assert os.listdir(path.parent) == [path.name]


# Protocol 0 cannot write a storage; it has a test of its own below.
@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("place", ["whole", "value", "name", "hooks", "shape"])
@WRITERS
def test_a_call_is_refused_and_not_executed(tmp_path, torch, write, place, protocol):
    bad = touch(tmp_path / "touched")
    storage = Storage(np.zeros(4, np.float32))
    contents = {
        "whole": bad,
        "value": {"a": tensor(np.eye(2)), "b": bad},
        "name": {bad: tensor(np.eye(2))},
        "hooks": {"a": Tensor(storage, (4,), (1,), hooks=[bad])},
        "shape": {"a": Tensor(storage, bad, (1,))},
    }
    write(tmp_path / "x.pth", contents[place], protocol=protocol)
    assert_refused(tmp_path / "x.pth", "posix.system")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_builtins_are_refused(tmp_path, torch, protocol):
    code = f"open({str(tmp_path / 'touched')!r}, 'w')"
    write_zip(tmp_path / "x.pth", Call(eval, code), protocol=protocol)
    assert_refused(tmp_path / "x.pth", "(builtins|__builtin__).eval")


@pytest.mark.parametrize("position", range(3))
def test_a_call_in_a_header_is_refused(tmp_path, torch, position):
    headers = [MAGIC, PROTOCOL, SYSTEM]
    headers[position] = touch(tmp_path / "touched")
    write_legacy(tmp_path / "x.pth", {"a": tensor(np.eye(2))}, headers=headers)
    assert_refused(tmp_path / "x.pth", "posix.system")


def test_a_call_among_the_storage_keys_is_refused(tmp_path, torch):
    path = tmp_path / "x.pth"
    write_legacy(path, {})
    keys = pickle.dumps([], 2)
    assert path.read_bytes().endswith(keys)
    bad = pickle.dumps([touch(tmp_path / "touched")], 2)
    path.write_bytes(path.read_bytes().removesuffix(keys) + bad)
    assert_refused(path, "posix.system")


@pytest.mark.parametrize(
    "name",
    [
        # Beside the admitted names, and reached through them.
        "collections\nOrderedDict.fromkeys",
        "collections\nsys",
        "torch\nload",
        "torch.cuda\nFloatStorage",
        "torch._utils\n_rebuild_tensor_v2.__globals__",
        "deeprank_jax.models.torch_pickle\npickle",
    ],
)
@pytest.mark.parametrize("opcode", ["GLOBAL", "STACK_GLOBAL", "INST"])
def test_only_the_admitted_names_are(tmp_path, name, opcode):
    module, attribute = name.encode().split(b"\n")
    stack = b"".join(
        b"\x8c" + bytes([len(part)]) + part for part in (module, attribute)
    )
    code = {
        "GLOBAL": b"c" + name.encode() + b"\n",
        "STACK_GLOBAL": b"\x80\x04" + stack + b"\x93",
        "INST": b"(i" + name.encode() + b"\n",
    }[opcode]
    (tmp_path / "x.pth").write_bytes(code + b".")
    assert_refused(tmp_path / "x.pth", name.replace("\n", "."))


def test_a_file_cannot_change_what_it_is_given(tmp_path, torch):
    """BUILD sets attributes of anything on the stack, also of classes."""
    state = pickle.dumps((None, {"__defaults__": (1,), "spoiled": 1}), 2)[2:-1]
    for name in ("torch._utils\n_rebuild_tensor_v2", "collections\nOrderedDict"):
        (tmp_path / "x.pth").write_bytes(
            b"\x80\x02c" + name.encode() + b"\n" + state + b"b."
        )
        with pytest.raises(WeightsError):
            read_torch(tmp_path / "x.pth")
    write_zip(tmp_path / "x.pth", {"a": tensor(np.eye(2))})
    np.testing.assert_array_equal(read_torch(tmp_path / "x.pth")["a"], np.eye(2))
    assert not hasattr(collections.OrderedDict, "spoiled")


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((3, 3), (3, 1), 0),
        ((8,), (1,), 1),
        ((2,), (8,), 0),
        ((2,), (1,), 2**62),
        ((2,), (2**62,), 0),
        # One number, many times: no more than the file weighs is allocated.
        ((2**40,), (0,), 0),
        ((3, 3), (0, 1), 0),
        ((0,), (1,), 9),
    ],
)
@WRITERS
def test_a_view_beyond_its_storage_is_refused(
    tmp_path, torch, write, shape, strides, offset
):
    storage = Storage(np.zeros(8, np.float32))
    write(tmp_path / "x.pth", {"a.b": Tensor(storage, shape, strides, offset)})
    with pytest.raises(WeightsError, match=r"x\.pth: a\.b of shape .* lies outside"):
        read_torch(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((-1,), (1,), 0),
        ((2,), (-1,), 4),
        ((2,), (1,), -1),
        ((2, 2), (1,), 0),
        ((2.0,), (1,), 0),
        ((True,), (1,), 0),
        (2, 1, 0),
    ],
)
@WRITERS
def test_what_is_no_shape_is_refused(tmp_path, torch, write, shape, strides, offset):
    storage = Storage(np.zeros(8, np.float32))
    write(tmp_path / "x.pth", {"a": Tensor(storage, shape, strides, offset)})
    with pytest.raises(WeightsError, match=r"damaged .*no offset, shape and strides"):
        read_torch(tmp_path / "x.pth")


@WRITERS
def test_a_file_cut_off_anywhere_is_refused(tmp_path, torch, write):
    path = tmp_path / "x.pth"
    write(path, {"a": tensor(np.eye(3)), "b": tensor(np.eye(2, dtype=np.float16))})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"x\.pth is cut off or damaged"):
            read_torch(path)


def test_a_claimed_size_is_not_allocated(tmp_path, torch):
    path = tmp_path / "x.pth"
    write_legacy(path, {"a": tensor(np.zeros(7, np.float32))})
    whole = path.read_bytes()
    # Where the size stands twice, as the tensor's and before the numbers.
    assert whole.count(b"K\x07") == 2
    huge = b"\x8a\x06" + (2**44).to_bytes(6, "little")
    whole = whole.replace(b"K\x07", huge)
    whole = whole.replace(struct.pack("<q", 7), struct.pack("<q", 2**44))
    path.write_bytes(whole)
    with pytest.raises(WeightsError, match="should have 17,592,186,044,416 elements"):
        read_torch(path)


def test_a_compressed_archive_is_refused(tmp_path, torch):
    zeros = tensor(np.zeros(10**6, np.float32))
    write_zip(tmp_path / "x.pth", {"a": zeros}, compress=True)
    with pytest.raises(WeightsError, match="parts are larger than the file"):
        read_torch(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "holds a list, expected a mapping"),
        ({"epoch": 3}, "holds a int under 'epoch', expected a mapping"),
        ({"model": {}}, "holds a dict under 'model'"),
        ({3: "x"}, "holds a str under 3"),
    ],
)
@WRITERS
def test_only_a_mapping_of_tensors_is_one(tmp_path, torch, write, content, message):
    write(tmp_path / "x.pth", content)
    with pytest.raises(WeightsError, match=message):
        read_torch(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is cut off or damaged"),
        (b"<htm", "not a torch file .first bytes b'<htm'"),
        (b"version https://git-lfs", "first bytes b'version '"),
        (pickle.dumps({"a": 1}), "is a pickle that torch did not write"),
    ],
)
def test_what_is_no_torch_file_is_named(tmp_path, content, message):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_torch(tmp_path / "x.pth")


def test_an_archive_of_something_else_is_named(tmp_path):
    np.savez(tmp_path / "x.npz", a=1)
    with pytest.raises(WeightsError, match=r"without torch's data\.pkl"):
        read_torch(tmp_path / "x.npz")


def test_big_endian_files_are_refused(tmp_path, torch):
    system = {**SYSTEM, "little_endian": False}
    write_legacy(tmp_path / "x.pth", {}, headers=(MAGIC, PROTOCOL, system))
    with pytest.raises(WeightsError, match="expected 1001 and little-endian"):
        read_torch(tmp_path / "x.pth")
    write_zip(tmp_path / "x.pth", {}, byteorder=b"big")
    with pytest.raises(WeightsError, match="big-endian machine"):
        read_torch(tmp_path / "x.pth")
