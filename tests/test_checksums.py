"""A folder's checksums tell every change of its files and of their list."""

import itertools
import json

import numpy as np
import pytest

from deeprank_jax import checksums


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "below" / "b").write_bytes(b"")
    checksums.write_checksums(tmp_path)
    return tmp_path


def test_files_are_listed_by_their_path(folder):
    assert checksums.read_checksums(folder).keys() == {"a", "below/b"}
    (folder / "below" / ".hidden").write_bytes(b"")
    assert checksums.find_damage(folder) is None


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a", b"onf", "a has changed"),
        ("below/b", b"x", "below/b has changed"),
        ("a", None, "a: No such file or directory"),
        (checksums.CHECKSUMS, None, "SHA256SUMS: No such file or directory"),
        (checksums.CHECKSUMS, b"", "SHA256SUMS does not list a"),
        ("below/c", b"", "SHA256SUMS does not list below/c"),
        (checksums.CHECKSUMS, b"\xff\n", "is not a checksum"),
    ],
)
def test_a_change_is_named(folder, name, content, reason):
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    assert reason in checksums.find_damage(folder)


def test_no_part_of_the_list_can_be_changed(folder):
    path = folder / checksums.CHECKSUMS
    content = path.read_bytes()
    for i in range(len(content) - 1):
        for changed in (content[:i], content[:i] + b"~" + content[i + 1 :]):
            path.write_bytes(changed)
            assert checksums.find_damage(folder) is not None, changed


CONTENT = {"model": "m", "sizes": [1, 2.5], "names": {"é": None}}


def test_no_bit_of_a_sealed_object_can_be_flipped():
    """It is refused or says the same; a changed name of the checksum is left over."""
    text = json.dumps(checksums.seal_json(CONTENT)).encode()
    assert checksums.unseal_json(json.loads(text)) == CONTENT
    for place in range(len(text)):
        for bit in range(8):
            changed = bytearray(text)
            changed[place] ^= 1 << bit
            try:
                content = checksums.unseal_json(json.loads(bytes(changed)))
            except ValueError:
                continue
            assert len(content) > len(CONTENT) or content == CONTENT, changed


def test_an_object_of_an_earlier_version_has_no_checksum():
    assert checksums.unseal_json(CONTENT) == CONTENT
    with pytest.raises(ValueError, match="not a JSON object"):
        checksums.unseal_json([1])


def test_a_listed_file_cannot_change_or_go(tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"two")
    checksums.check_listed(tmp_path / "a")  # As in a run of an earlier version.
    checksums.list_checksums(tmp_path / checksums.RUN_CHECKSUMS, ["a"])
    checksums.check_listed(tmp_path / "a")
    checksums.check_listed(tmp_path / "b")
    (tmp_path / "a").write_bytes(b"onf")
    with pytest.raises(ValueError, match=r"it has changed since run\.sha256"):
        checksums.check_listed(tmp_path / "a")
    (tmp_path / "a").unlink()
    with pytest.raises(ValueError, match="lists it: No such file"):
        checksums.check_listed(tmp_path / "a")
    (tmp_path / checksums.RUN_CHECKSUMS).write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match="is not a checksum"):
        checksums.check_listed(tmp_path / "b")


def test_a_table_has_one_digest_however_it_is_divided():
    texts, numbers = ["a", "bc", ""], np.arange(6.0).reshape(3, 2)
    digest = lambda *cuts: [
        checksums.TableDigest("m").add({"x": texts[a:b], "y": numbers[a:b]})
        for a, b in itertools.pairwise(cuts)
    ]
    (whole,) = digest(0, 3)
    parts = checksums.TableDigest("m")
    for a, b in ((0, 1), (1, 3)):
        parts.add({"x": texts[a:b], "y": numbers[a:b]})
    assert parts.hexdigest() == whole.hexdigest()
    others = [
        checksums.TableDigest("n").add({"x": texts, "y": numbers}),
        checksums.TableDigest("m").add({"x": ["ab", "c", ""], "y": numbers}),
        checksums.TableDigest("m").add({"x": texts, "y": numbers[::-1]}),
        checksums.TableDigest("m").add({"y": texts, "x": numbers}),
    ]
    assert len({x.hexdigest() for x in (*others, whole)}) == 5


@pytest.mark.parametrize("damage", ["cut", "flip", "text", "empty"])
def test_damaged_arrays_are_refused(tmp_path, damage):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(5), y=np.array("m"))
    content = path.read_bytes()
    arrays = checksums.read_arrays(path)
    assert (arrays["x"].tolist(), str(arrays["y"])) == ([0, 1, 2, 3, 4], "m")
    place = content.index(b"NUMPY") + 140
    flipped = content[:place] + bytes([content[place] ^ 8]) + content[place + 1 :]
    path.write_bytes(
        {"cut": content[:-9], "flip": flipped, "text": b"no", "empty": b""}[damage]
    )
    with pytest.raises(ValueError, match=r"\w"):
        checksums.read_arrays(path)
    with pytest.raises(FileNotFoundError):
        checksums.read_arrays(tmp_path / "none")
