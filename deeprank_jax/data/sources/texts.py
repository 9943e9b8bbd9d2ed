"""Text of list files: its encoding is UTF-8, or UTF-16 with a byte order mark."""

import codecs
from collections.abc import Sequence
import os
import pathlib

from deeprank_jax import errors, files

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_list(path: pathlib.Path, *, any_bytes: bool = False) -> str:
    """Returns the text of a list file.

    Args:
      path: Path of the file.
      any_bytes: True to return bytes that are not UTF-8 as surrogates, as they may be
        part of a file's name.

    Raises:
      DataError: The file has another encoding.
      OSError: The file cannot be read.
    """
    content = files.read_bytes(path, files.MAX_TEXT)
    if content.startswith(_UTF_16):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError as error:
            raise errors.DataError(
                f"{files.printable(path)}: cannot be read as UTF-16 ({error.reason}); "
                "save it as UTF-8."
            ) from error
    if b"\0" in content:
        raise errors.DataError(
            f"{files.printable(path)}: cannot be read, it has zero bytes, perhaps as "
            f"UTF-16; {_convert(path, 'UTF-16LE')}."
        )
    try:
        return content.decode("utf-8-sig", "surrogateescape" if any_bytes else "strict")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise errors.DataError(
            f"{files.printable(path)}: cannot be read, it is not UTF-8 in line "
            f"{line:,} (byte 0x{content[error.start]:02x}), perhaps Windows-1252; "
            f"{_convert(path)}."
        ) from error


def check_names(path: pathlib.Path, names: Sequence[str]) -> None:
    """Checks that names with bytes that are not UTF-8 are those of files.

    Args:
      path: Path of the list, whose folder relative names start from.
      names: Names, other bytes as surrogates.

    Raises:
      DataError: There is no such file.
    """
    for name in names:
        is_utf_8 = name.isascii() or not any("\udc80" <= x <= "\udcff" for x in name)
        if not is_utf_8 and not os.path.exists(path.parent / name):
            raise errors.DataError(
                f"{files.printable(path)}: {files.printable(name)} is not UTF-8 and "
                f"names no file; the list may be Windows-1252; {_convert(path)}."
            )


def _convert(path: pathlib.Path, encoding: str = "WINDOWS-1252") -> str:
    command = f"iconv -f {encoding} -t UTF-8 {files.printable(path.name)}"
    return f"save it as UTF-8, e.g. by `{command} > new{path.suffix}`"
