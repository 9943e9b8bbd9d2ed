"""Things that are no regular file, or hold no image."""

import io
import os
import pathlib
import pickle
import socket
import zipfile

from tools.faults.hostile_images.kinds import content, kind


@kind
def pipe(path, rng):
    os.mkfifo(path)


@kind
def link_to_pipe(path, rng):
    os.mkfifo(path.with_name(f".{path.name}.pipe"))
    path.symlink_to(f".{path.name}.pipe")


@kind
def unix_socket(path, rng):
    # The path of a socket may have 107 characters; a folder of tests has more.
    before = pathlib.Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


@kind
def link_to_zero(path, rng):
    path.symlink_to("/dev/zero")


@kind
def link_to_terminal(path, rng):
    path.symlink_to("/dev/tty")


@kind
def link_to_random(path, rng):
    path.symlink_to("/dev/urandom")


@kind
def link_to_itself(path, rng):
    path.symlink_to(path.name)


@kind
def link_to_nothing(path, rng):
    path.symlink_to("nowhere.jpg")


@kind
def link_to_memory(path, rng):
    path.symlink_to("/proc/self/mem")


@kind
def link_through_a_file(path, rng):
    path.with_name(f".{path.name}.txt").write_text("x")
    path.symlink_to(f".{path.name}.txt/x.jpg")


@kind
def sparse_ten_gigabytes(path, rng):
    with path.open("wb") as file:
        file.write(b"\xff\xd8\xff\xe0")
        file.truncate(10 * 2**30 + int(rng.integers(2**20)))


# Content of other kinds.


@content
def no_bytes(rng):
    return b""


@content
def zeros(rng):
    return bytes(int(rng.integers(1, 100)))


@content
def page(rng):
    return b"<html><body>404 Not Found</body></html>"


@content
def postscript(rng):
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop\n"


@content
def drawing(rng):
    return b'<svg xmlns="http://www.w3.org/2000/svg"><script>x()</script></svg>'


@content
def pickled(rng):
    return pickle.dumps({"call": os.getcwd})


@content
def archive(rng):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10**7))
    return file.getvalue()
