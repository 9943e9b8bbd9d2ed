"""Versions of the images of an index, by which it follows their files.

`images.jsonl` in the index's folder has a line for each image that was added: its path,
the version of its file and its label; the last line of a path counts. An image without
a line, or with a damaged one, is embedded again.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
import dataclasses
import functools
import hashlib
import json
import os
import pathlib

from absl import logging

from deeprank_jax import files
from deeprank_jax.data.real_paths import RealPaths
from deeprank_jax.data.records import Records

_FILE = "images.jsonl"
_DIGEST_BYTES = 12
# Number of lines that are never too many.
_MAX_SPARE_LINES = 1_000


@dataclasses.dataclass(frozen=True, slots=True)
class Version:
    """State of an image's file when it was embedded, and its label.

    Attributes:
      stamp: Size and time of change; empty for an image that is not a file.
      digest: Digest of its content; empty for an image that is not a file.
      label: Label.
    """

    stamp: str
    digest: str
    label: str


@dataclasses.dataclass(frozen=True)
class Changes:
    """Differences between an index and a collection of images.

    Attributes:
      new: Indices of the records that the index does not have.
      changed: Indices of records of another content or label, with their ids.
      removed: Ids below the folder whose files are gone.
      unreachable: Ids of records whose files cannot be reached now.
    """

    new: Sequence[int]
    changed: dict[int, str]
    removed: Sequence[str]
    unreachable: Sequence[str]


class Versions:
    """Versions of the images of one index."""

    def __init__(self, index: pathlib.Path):
        """Reads the versions of an index.

        Args:
          index: Folder of the index.
        """
        self._path = index / _FILE
        self._versions: dict[str, Version] = {}
        self._num_lines = 0
        if self._path.exists():
            # Without a limit: its size is that of the index, and only a line is held.
            with files.open_file(self._path) as file:
                for line in file:
                    self._read(line)

    def _read(self, line: bytes) -> None:
        if not line.strip():
            return
        self._num_lines += 1
        try:
            name, *fields = files.parse_json(line)
            self._versions[name] = Version(*map(str, fields))
        except (ValueError, TypeError):
            pass

    def label(self, name: str) -> str:
        """Returns the label that an image had, "" for a new one.

        Args:
          name: Id of the image.
        """
        return self._versions[name].label if name in self._versions else ""

    def watch(
        self, records: Records
    ) -> tuple[Records, Callable[[int, str], Version], Collection[int]]:
        """Returns the records, a function to the version of one, and those it is for.

        These are the indices of records whose content was read, without those whose
        version was returned.

        Args:
          records: Images.
        """
        digests: dict[int, tuple[str, str]] = {}

        def read(index: int):
            # Before the content, so that a change in between is noticed later.
            stamp = _stamp(records, index)
            content = records.read(index)
            digests[index] = stamp, _digest(content) if stamp else ""
            return content

        def version(index: int, label: str) -> Version:
            return Version(*digests.pop(index), label)

        return dataclasses.replace(records, read=read), version, digests.keys()

    def add(self, versions: Iterable[tuple[str, Version]]) -> None:
        """Appends the versions of images that are in the index now.

        Args:
          versions: Ids and versions.
        """
        lines = [json.dumps([name, *dataclasses.astuple(x)]) for name, x in versions]
        # Begins a line of its own, should the last one be cut off.
        files.append_text(self._path, "".join(f"\n{line}" for line in lines) + "\n")
        self._num_lines += len(lines)

    def compact(self, ids: Sequence[str]) -> None:
        """Rewrites the file with a line for each image, if it has many more.

        Args:
          ids: Ids of the images in the index.
        """
        if self._num_lines <= max(_MAX_SPARE_LINES, 2 * len(ids)):
            return
        latest = Versions(self._path.parent)
        with files.replacing(self._path) as file:
            for name in ids:
                if version := latest._versions.get(name):
                    line = json.dumps([name, *dataclasses.astuple(version)])
                    file.write(f"{line}\n".encode())

    def compare(
        self, ids: Sequence[str], records: Records, folder: str | None
    ) -> Changes:
        """Compares the images of an index with a collection.

        Args:
          ids: Ids of the images in the index.
          records: Collection.
          folder: Folder of the collection, whose missing files are removed; None for a
            list, which may name only some of the images.
        """
        find = _create_finder(ids)
        new, changed, listed, unreachable = [], {}, set(), []
        for index in range(len(records)):
            name = find(records.describe(index))
            if name is None:
                new.append(index)
                continue
            listed.add(name)
            try:
                if self._has_changed(name, records, index):
                    changed[index] = name
            except OSError:
                unreachable.append(name)
        prefix = os.path.join(folder or "", "")
        removed = [
            name
            for name in (ids if folder is not None else ())
            if name.startswith(prefix) and name not in listed and _is_gone(name)
        ]
        return Changes(new, changed, removed, unreachable)

    def _has_changed(self, name: str, records: Records, index: int) -> bool:
        stamp = _stamp(records, index)
        if not stamp:
            return False
        version = self._versions.get(name)
        if version is None:
            return True
        # A list without labels takes none away.
        if records.label_name(index) not in ("", version.label):
            return True
        if stamp == version.stamp:
            return False
        return _digest(records.read(index)) != version.digest


def _create_finder(ids: Sequence[str]) -> Callable[[str], str | None]:
    """Returns a function from a path to the id of its file, None for a new one."""
    names = set(ids)
    real_paths = RealPaths()

    # Links are followed only at a path that is no id, as many files take long.
    @functools.cache
    def by_real_path() -> dict[str, str]:
        return {real_paths.of(name): name for name in ids}

    def find(path: str) -> str | None:
        return path if path in names else by_real_path().get(real_paths.of(path))

    return find


def warn_of_unreachable(name: str, ids: Sequence[str]) -> str:
    """Warns of images of an index that cannot be reached; returns the first of them.

    Args:
      name: Name of the folder or list.
      ids: Ids of the images.
    """
    if not ids:
        return ""
    first = files.printable(ids[0])
    logging.warning(
        "%s: %s images of the index cannot be reached, the first is %s; they stay in "
        "the index as they were.",
        name,
        f"{len(ids):,}",
        first,
    )
    return first


def _is_gone(path: str) -> bool:
    """Returns whether a file was deleted, which one behind a broken link was not."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        parent = os.path.dirname(path)
        return os.path.exists(parent) or _is_gone(parent)
    except OSError:
        return False
    return False


def _stamp(records: Records, index: int) -> str:
    """Returns size and time of a record's file, "" if it is none."""
    if records.path is None:
        return ""
    status = os.stat(records.path(index))
    return f"{status.st_size} {status.st_mtime_ns}"


def _digest(content: object) -> str:
    if not isinstance(content, bytes):
        return ""
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()
