"""Torch files that would keep a reader busy are refused before they are executed."""

import io
import pickle
import time

from helpers.torch_files import stand_in_for_torch, tensor, write_legacy, write_zip
import numpy as np
import pytest

from deeprank_jax.errors import WeightsError
from deeprank_jax.models.pretrained.pickle_check import check_pickle
from deeprank_jax.models.pretrained.torch_pickle import read_torch


def twice_remembered(levels):
    """Returns instructions for a tuple of twice the tuple before, and so on."""
    code = b"K\x01\x85q\x00"
    for level in range(levels):
        code += b"h%c\x86q%c" % (level, level + 1)
    return code


def endless():
    """Yields instructions of keys that cannot be hashed in time, or at all."""
    yield "remembered", twice_remembered(60)
    yield "deep", b"K\x01" + b"\x85" * 200_000
    yield "called", b"ccollections\nOrderedDict\n" + twice_remembered(60) + b"\x85R"
    yield "referred", b"(X\x07\0\0\0storage" + twice_remembered(60) + b"tQ"


@pytest.mark.parametrize(
    "code", [code for _, code in endless()], ids=[name for name, _ in endless()]
)
def test_keys_whose_hash_never_ends_are_refused_at_once(tmp_path, code):
    path = tmp_path / "x.pth"
    path.write_bytes(b"\x80\x02}" + code + b"K\x01s.")
    start = time.process_time()
    with pytest.raises(WeightsError, match="nests objects without end"):
        read_torch(path)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("code", "match"),
    [
        (b"]r\xff\xff\xff\x7f.", "numbers its objects wrongly"),
        (b"]" * 400_100 + b".", "too many instructions"),
        (b"]2.", "has the instruction DUP"),
    ],
)
def test_other_ways_to_take_memory_or_time_are_refused(tmp_path, code, match):
    path = tmp_path / "x.pth"
    path.write_bytes(b"\x80\x02" + code)
    start = time.process_time()
    with pytest.raises(WeightsError, match=match):
        read_torch(path)
    assert time.process_time() - start < 10


@pytest.mark.parametrize("write", [write_legacy, write_zip])
@pytest.mark.parametrize("protocol", [2, 4])
def test_the_pickles_of_torch_pass(tmp_path, monkeypatch, write, protocol):
    stand_in_for_torch(monkeypatch)
    one = tensor(np.zeros((2, 3), np.float32))
    content = {f"layer.{i}.weight": tensor(np.ones(2)) for i in range(2000)}
    write(tmp_path / "x.pth", {**content, "a": one, "b": one}, protocol=protocol)
    assert len(read_torch(tmp_path / "x.pth")) == 2002


def test_a_pickle_is_left_at_its_end():
    first = pickle.dumps({"a": ("x", 1.5, None, [1, (2, 3)])}, 2)
    file = io.BytesIO(first + b"rest")
    check_pickle(file)
    assert file.read() == b"rest"
