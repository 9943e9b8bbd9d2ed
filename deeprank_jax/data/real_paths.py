"""Real paths of files, without links and other spellings."""

import os


class RealPaths:
    """Real paths of many files; each folder is resolved once."""

    def __init__(self) -> None:
        """Begins without folders."""
        self._folders: dict[str, str] = {}

    def of(self, path: str) -> str:
        """Returns the path of a file without links, `..` and double slashes.

        Args:
          path: Path of a file that may be missing.
        """
        folder, name = os.path.split(path)
        if name in ("", ".", "..") or os.path.islink(path):
            return os.path.realpath(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], name)
