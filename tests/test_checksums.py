"""A folder's checksums tell every change of its files and of their list."""

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
