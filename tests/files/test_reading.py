"""Only regular files are read, and none larger than its limit."""

import os
import socket
import threading

import pytest

from deeprank_jax import files
from deeprank_jax.errors import ReadError, UserError


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


def make_device(path):
    path.symlink_to("/dev/zero")


def make_sparse(path):
    with path.open("wb") as file:
        file.truncate(10 * 2**30)


READERS = {
    "read_bytes": lambda path: files.read_bytes(path, 100),
    "read_text": lambda path: files.read_text(path, 100),
    "read_json": lambda path: files.read_json(path, 100),
    "open_file": lambda path: files.open_file(path, 100).close(),
    "check_file": lambda path: files.check_file(path, 100),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    ("make", "match"),
    [
        (make_pipe, "x is a named pipe, not a file; remove it or leave it out"),
        (make_socket, "x is a socket, not a file"),
        (make_device, "x is a device, not a file"),
        (os.mkdir, "x is a folder, not a file"),
        (make_sparse, "x is 10,737,418,240 bytes, more than the limit of 100; make it"),
    ],
)
def test_nothing_else_is_read(tmp_path, monkeypatch, name, make, match):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "x")
    with pytest.raises(ReadError, match=match):
        READERS[name](tmp_path / "x")


def test_errors_are_those_of_a_user_and_of_the_system(tmp_path):
    os.mkfifo(tmp_path / "x\x1b[31m")
    with pytest.raises(ReadError) as caught:
        files.read_bytes(tmp_path / "x\x1b[31m", 100)
    assert isinstance(caught.value, UserError)
    assert isinstance(caught.value, OSError)
    assert caught.value.strerror == "a named pipe, not a file"
    assert "\\x1b[31m is a named pipe" in str(caught.value)
    with pytest.raises(FileNotFoundError):
        files.read_bytes(tmp_path / "missing", 100)
    with pytest.raises(ReadError, match="correct the name"):
        files.read_bytes("a\0b", 100)


@pytest.mark.parametrize("size", [0, 1, 99, 100])
def test_content_comes_back(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "x").write_bytes(content)
    assert files.read_bytes(str(tmp_path / "x"), 100) == content
    with files.open_file(tmp_path / "x", 100) as file:
        assert file.read() == content


def test_a_file_that_grows_is_read_to_its_limit(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    real = os.read

    def read(descriptor, size):
        with path.open("ab") as file:
            file.write(b"67")
        return real(descriptor, size)

    monkeypatch.setattr(os, "read", read)
    # Each reading adds two bytes, also that which would find the end.
    with pytest.raises(ReadError, match="more than the limit of 9"):
        files.read_bytes(path, 9)


def test_a_file_of_the_system_without_a_size_is_read():
    content = files.read_bytes("/proc/self/stat", 2**20)
    assert content.startswith(str(os.getpid()).encode())


def test_a_writer_of_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x")
    ended = threading.Event()

    def read():
        with pytest.raises(ReadError):
            files.read_bytes(tmp_path / "x", 100)
        ended.set()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    assert ended.wait(5)


def test_text_has_newlines_and_an_encoding(tmp_path):
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfa\r\nb\xff")
    options = {"encoding": "utf-8-sig", "errors": "replace"}
    assert files.read_text(tmp_path / "x", **options) == "a\nb�"
    with pytest.raises(UnicodeDecodeError):
        files.read_text(tmp_path / "x")


def test_json_that_is_nested_too_deeply_is_no_json(tmp_path):
    (tmp_path / "x").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        files.read_json(tmp_path / "x")
    (tmp_path / "x").write_text('{"a": [1]}')
    assert files.read_json(tmp_path / "x") == {"a": [1]}


def test_links_out_of_a_folder_are_known(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "in-out"
    inside.mkdir()
    outside.mkdir()
    (inside / "x").symlink_to(outside)
    (tmp_path / "link").symlink_to(inside)
    assert files.is_inside(inside / "y", tmp_path / "link")
    assert files.is_inside(tmp_path / "link" / "y", inside)
    assert not files.is_inside(inside / "x" / "y", inside)
    assert not files.is_inside(inside / ".." / "in-out", inside)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [("=1+1", "'=1+1"), ("+x", "'+x"), ("-x", "'-x"), ("@x", "'@x"), ("\tx", "'\tx"),
     ("-1.5", "-1.5"), ("+1e3", "+1e3"), ("a=b", "a=b"), ("", "")],
)  # fmt: skip
def test_cells_are_no_formulas(cell, expected):
    assert files.defused(cell) == expected


def test_names_cannot_control_a_terminal():
    name = "a\x1b[31m\n\u202egpj\x9b\x7fé😀\u200d"
    assert files.printable(name) == "a\\x1b[31m\\n\\u202egpj\\x9b\\x7fé😀\u200d"
    assert files.as_text(name) == name
