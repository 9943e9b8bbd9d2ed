import errno
import os
import pathlib
import stat

import pytest

from deeprank_jax import errors, files


def write_half(path):
    with files.replacing(path) as file:
        file.write(b"half")
        raise KeyError


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyError):
        write_half(path)
    assert [x.name for x in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"
    with files.replacing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert [x.name for x in tmp_path.iterdir()] == ["file"]


def test_two_writers_of_one_file_have_scratch_files_of_their_own(tmp_path):
    path = tmp_path / "file"
    with files.replacing(path) as first, files.replacing(path) as second:
        first.write(b"first")
        second.write(b"second")
        scratch = {x.name for x in tmp_path.iterdir()}
        assert len(scratch) == 2
        assert all(x.startswith(".file.") and x.endswith(".tmp") for x in scratch)
    assert path.read_bytes() == b"first"


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "x" * 200])
def test_a_name_of_any_length_that_fits_is_written(tmp_path, name):
    with files.replacing(tmp_path / name) as file:
        file.write(b"new")
    assert (tmp_path / name).read_bytes() == b"new"
    assert [x.name for x in tmp_path.iterdir()] == [name]


def test_a_name_is_shortened_only_if_it_must_be():
    assert files.with_room("x" * 200) == "x" * 200
    one, other = (files.with_room("x" * 201 + end) for end in "ab")
    assert len(one) == len(other) == 32
    assert one != other


def test_file_and_folder_are_synced(tmp_path, monkeypatch):
    synced = []

    def fsync(descriptor, call=os.fsync):
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        call(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_json(tmp_path / "x.json", {"é": 1})
    assert synced == [False, True]
    assert (tmp_path / "x.json").read_text() == '{\n  "\\u00e9": 1\n}\n'


def test_a_new_file_has_the_usual_permissions(tmp_path):
    files.write_text(tmp_path / "ours", "é")
    (tmp_path / "usual").write_text("é", encoding="utf-8")
    ours, usual = ((tmp_path / name).stat() for name in ("ours", "usual"))
    assert ours.st_mode == usual.st_mode
    assert (tmp_path / "ours").read_bytes() == "é".encode()


@pytest.mark.parametrize(
    ("call", "number", "remedy"),
    [
        ("fsync", errno.ENOSPC, "free some disk space"),
        ("fsync", errno.EDQUOT, "your disk quota"),
        ("replace", errno.EROFS, "a folder that you may write to"),
        ("replace", errno.EIO, "choose another place"),
    ],
)
def test_an_error_of_the_disk_names_file_and_remedy(
    tmp_path, monkeypatch, call, number, remedy
):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    owner = os if call == "fsync" else pathlib.Path
    monkeypatch.setattr(owner, call, fail)
    with pytest.raises(errors.WriteError, match=f"x.json cannot.*{remedy}") as info:
        files.write_json(tmp_path / "x.json", {})
    assert info.value.errno == number
    assert os.strerror(number) in str(info.value)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(errors.WriteError, match="create its folder first"):
        files.write_text(tmp_path / "missing" / "x", "")
    (tmp_path / "file").touch()
    with pytest.raises(errors.WriteError, match="file/folder cannot be written"):
        files.create_folder(tmp_path / "file" / "folder")
    assert files.create_folder(tmp_path / "a" / "b").is_dir()


def test_an_error_of_another_file_stays_as_it_is(tmp_path):
    def read_another():
        with files.replacing(tmp_path / "x"):
            (tmp_path / "other").read_bytes()

    with pytest.raises(FileNotFoundError, match="other") as info:
        read_another()
    assert not isinstance(info.value, errors.UserError)
    assert not list(tmp_path.iterdir())


def test_text_is_appended_to_a_regular_file_only(tmp_path):
    path = tmp_path / "log"
    files.append_text(path, "one\n")
    files.append_text(path, "twö\n")
    assert path.read_text(encoding="utf-8") == "one\ntwö\n"
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(path)
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for other in (link, pipe, tmp_path):
        with pytest.raises(errors.WriteError, match=rf"{other} cannot be written"):
            files.append_text(other, "three\n")
    os.close(reader)
    with pytest.raises(errors.WriteError, match="delete it"):
        files.append_text(pipe, "three\n")
    assert path.read_text(encoding="utf-8") == "one\ntwö\n"


def test_a_file_in_the_place_of_a_folder_is_not_to_be_deleted(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(errors.WriteError, match="choose another name") as raised:
        files.create_folder(path)
    assert "delete" not in str(raised.value)
