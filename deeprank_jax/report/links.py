"""Addresses of image files in a page's links."""

import os
import pathlib
import urllib.parse


def link_to(path: str, folder: str | os.PathLike[str]) -> str:
    """Returns the address of a file, relative to the folder of the page.

    A relative address stays right when page and images move together, and does not tell
    where on a disk they lie.

    Args:
      path: Path of the file, absolute or relative to the working directory.
      folder: Folder of the page.
    """
    try:
        relative = os.path.relpath(path, folder)
    except ValueError:  # On another drive of Windows.
        return pathlib.Path(path).absolute().as_uri()
    # As bytes, since names of an old disk may not be UTF-8. A colon is escaped, too, so
    # that nothing before it is taken for a scheme.
    return urllib.parse.quote(os.fsencode(relative.replace(os.sep, "/")), safe="/")
