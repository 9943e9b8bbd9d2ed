"""Array files are compared with what they claim before memory is taken."""

import io
import pathlib
import time
import zipfile

import numpy as np
import pytest

from deeprank_jax.errors import ReadError
from deeprank_jax.files import arrays
from deeprank_jax.models.pretrained.weights import WeightsError, read_arrays
from deeprank_jax.relevance import vectors


def header(shape, dtype="<f4"):
    file = io.BytesIO()
    fields = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, fields)
    return file.getvalue()


CONTENT = {
    "a": np.arange(6.0).reshape(2, 3),
    "b": np.zeros((2, 0), np.int32),
    "c": np.array(["é", "long"]),
    "d": np.float16(3),
    "e": np.asfortranarray(np.arange(6).reshape(2, 3)),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(tmp_path, save):
    save(tmp_path / "x.npz", **CONTENT)
    loaded = arrays.read_npz(tmp_path / "x.npz")
    assert list(loaded) == list(CONTENT)
    for name, array in CONTENT.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype
        np.save(tmp_path / "x.npy", array)
        np.testing.assert_array_equal(arrays.read_npy(tmp_path / "x.npy"), array)


BAD = {
    "160 TiB": (header((2**45,)) + b"x" * 100, "140,737,488,355,328 bytes, more than"),
    "one short": (header((3,)) + b"x" * 11, "12 bytes, more than it holds"),
    "negative": (header((-(2**40), -4)), "bytes, more than it holds|header"),
    "objects": (header((1,), "|O") + b"x" * 99, "Python objects, which are not read"),
    "no array": (b"x" * 100, "magic"),
    "empty": (b"", "EOF|magic"),
    "version": (b"\x93NUMPY\x09\x00" + b"x" * 99, "format"),
    "header": (b"\x93NUMPY\x01\x00\x09\x00{'x': (((", "header"),
}


@pytest.mark.parametrize(("content", "match"), BAD.values(), ids=BAD)
def test_headers_that_lie_are_refused(tmp_path, content, match):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ValueError, match=match):
        arrays.read_npy(tmp_path / "x.npy")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("one.npy", content)
    with pytest.raises(ValueError, match=f"'one': .*({match})"):
        arrays.read_npz(tmp_path / "x.npz")


def bomb(path: pathlib.Path) -> None:
    """Writes 3 MB that unpack to 3 GiB, without using that much."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x.npy", "w", force_zip64=True) as file,
    ):
        file.write(header((3 * 2**28,)))
        for _ in range(48):
            file.write(bytes(2**22))


def test_an_archive_that_grows_without_end_is_refused(tmp_path):
    bomb(tmp_path / "x.npz")
    start = time.monotonic()
    with pytest.raises(ValueError, match="more than 16 times its size"):
        arrays.read_npz(tmp_path / "x.npz")
    with pytest.raises(WeightsError, match="more than 16 times its size"):
        read_arrays(tmp_path / "x.npz")
    with pytest.raises(vectors.DataError, match="more than 16 times its size"):
        vectors.read_vectors(tmp_path / "x.npz")
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_weights_and_vectors_have_true_headers(tmp_path, name):
    if name.endswith("y"):
        (tmp_path / name).write_bytes(BAD["160 TiB"][0])
    else:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("ids.npy", BAD["160 TiB"][0])
        with pytest.raises(WeightsError, match="more than it holds"):
            read_arrays(tmp_path / name)
    with pytest.raises(vectors.DataError, match="more than it holds"):
        vectors.read_vectors(tmp_path / name)


def test_an_archive_is_a_file(tmp_path):
    (tmp_path / "x.npz").symlink_to("/dev/zero")
    with pytest.raises(ReadError, match="a device"):
        arrays.read_npz(tmp_path / "x.npz")
