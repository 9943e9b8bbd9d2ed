import collections
import os
import pickle
import struct

from helpers.torch_files import (
    MAGIC,
    PROTOCOL,
    SYSTEM,
    Call,
    Storage,
    Tensor,
    stand_in_for_torch,
    tensor,
    write_legacy,
    write_zip,
)
import ml_dtypes
import numpy as np
import pytest

from deeprank_jax.errors import WeightsError
from deeprank_jax.models.pretrained.torch_pickle import read_torch


@pytest.fixture
def torch(monkeypatch):
    stand_in_for_torch(monkeypatch)


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
        "deeprank_jax.models.pretrained.torch_pickle\npickle",
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
    state = pickle.dumps((None, {"__defaults__": ((1,),), "spoiled": 1}), 2)[2:-1]
    for name in ("torch._utils\n_rebuild_tensor_v2", "collections\nOrderedDict"):
        (tmp_path / "x.pth").write_bytes(
            b"\x80\x02c" + name.encode() + b"\n" + state + b"b."
        )
        with pytest.raises(WeightsError):
            read_torch(tmp_path / "x.pth")
    lacking = Tensor(Storage(np.zeros(4)), (4,), (1,))
    lacking.args = lacking.args[:3]
    write_zip(tmp_path / "x.pth", {"a": lacking})
    # Would be read, had the first file given the function a default.
    with pytest.raises(WeightsError, match="missing 1 required"):
        read_torch(tmp_path / "x.pth")
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


@WRITERS
def test_a_storage_of_another_size_is_refused(tmp_path, torch, write):
    """As told by a second name for it, or by what is stored."""
    for sizes in ((8, 9), (9, 9)):
        first, second = (Storage(np.zeros(8, np.float32), size=n) for n in sizes)
        second.key = first.key
        both = {"a": Tensor(first, (8,), (1,)), "b": Tensor(second, (8,), (1,))}
        write(tmp_path / "x.pth", both)
        with pytest.raises(WeightsError, match=r"two storages|should have 9 elements"):
            read_torch(tmp_path / "x.pth")


def test_torchs_oldest_views_are_refused(tmp_path, torch):
    storage = Storage(np.zeros(8, np.float32), view=("key", 0, 4))
    write_legacy(tmp_path / "x.pth", {"a": Tensor(storage, (4,), (1,))})
    with pytest.raises(WeightsError, match=r"only torch before 0\.4 wrote"):
        read_torch(tmp_path / "x.pth")


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
        ({3: "x"}, "holds a str under an int key"),
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
    with pytest.raises(WeightsError, match="than 1001, or is not little-endian"):
        read_torch(tmp_path / "x.pth")
    write_zip(tmp_path / "x.pth", {}, byteorder=b"big")
    with pytest.raises(WeightsError, match="big-endian machine"):
        read_torch(tmp_path / "x.pth")


def test_refusing_does_not_write_down_what_is_in_a_file(tmp_path):
    # Lists that hold one another twice: thirty of them would be printed 2 ** 30 times.
    nested = []
    for _ in range(30):
        nested = [nested, nested]
    path = tmp_path / "nested.pth"
    with path.open("wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": nested}):
            pickle.dump(part, file, protocol=2)
    with pytest.raises(WeightsError, match="not little-endian"):
        read_torch(path)
