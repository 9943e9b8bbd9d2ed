"""Folders of a run's checkpoints on disk: sealed, checked, copied, set aside.

Each step has a folder, which is sealed by checksums once it is on disk as a whole. The
best one has a copy in a folder beside it. A folder that has changed since it was sealed
is replaced by its copy, or set aside, so that training continues from an older step.
"""

import contextlib
import errno
import pathlib
import shutil

from absl import logging

from deeprank_jax import checksums, files
from deeprank_jax.errors import CheckpointError


class StepFolders:
    """Folders of the steps of one run.

    Attributes:
      directory: Folder of the checkpoints, with one folder per step.
      copies: Folder with a copy of the best step.
      damaged: Folder of steps that were set aside.
    """

    def __init__(self, directory: pathlib.Path):
        """Names the folders; nothing is read or written.

        Args:
          directory: Folder of the checkpoints.
        """
        self.directory = directory
        self.copies = directory.with_name(f"{directory.name}_copy")
        self.damaged = directory.with_name(f"{directory.name}_damaged")

    def seal(self, step: int) -> None:
        """Writes the checksums of a step once it is on disk.

        Raises:
          OSError: A file cannot be read or written, e.g. because the disk is full.
        """
        checksums.write_checksums(self.directory / str(step))
        files.sync(self.directory)

    def copy_best(self, step: int | None) -> None:
        """Copies the best step, sealed, in place of the copy of another one.

        Raises:
          OSError: The copy cannot be written, e.g. because the disk is full.
        """
        folder, copy = self.directory / str(step), self.copies / str(step)
        if step is None or not _is_sealed(folder):
            return
        if not _is_sealed(copy) or not _same_checksums(folder, copy):
            scratch = self._copy(folder)
            shutil.rmtree(copy, ignore_errors=True)
            scratch.rename(copy)
            files.sync(self.copies)
        for other in _step_folders(self.copies):
            if other != copy:
                shutil.rmtree(other)

    def copied_step(self) -> int | None:
        """Returns the best step if it has a copy."""
        return max((int(p.name) for p in _step_folders(self.copies)), default=None)

    def mend(self) -> None:
        """Replaces damaged steps by their copies, and sets the others aside.

        Only the newest step can be without checksums because its save was interrupted.
        Others without are of an earlier version, and get them now.
        """
        self._clean()
        steps = sorted(int(p.name) for p in _step_folders(self.directory))
        unsealed = [x for x in steps if not _is_sealed(self.directory / str(x))]
        if unsealed and unsealed[-1] == steps[-1] and self._has_sealed():
            self._set_interrupted_aside(self.directory / str(unsealed.pop()))
        for step in reversed(unsealed):
            self.seal(step)
        for folder in _step_folders(self.directory):
            reason = checksums.find_damage(folder)
            if reason is not None:
                self._mend_step(folder, reason)
        # E.g. because a process was killed while it replaced a step by its copy.
        for copy in _step_folders(self.copies):
            folder = self.directory / copy.name
            if not folder.exists():
                self._copy(copy).rename(folder)

    def check(self, step: int) -> None:
        """Checks that a step is as it was when it was sealed.

        Raises:
          CheckpointError: It is not.
        """
        folder = self.directory / str(step)
        reason = checksums.find_damage(folder)
        if reason is not None:
            raise CheckpointError(
                f"{folder} is damaged ({reason}); run the same command again, to "
                "continue from a checkpoint that is not."
            )

    def are_intact(self) -> bool:
        """Returns whether there are steps, and each is as it was when it was sealed."""
        folders = _step_folders(self.directory)
        sealed = all(map(_is_sealed, folders))
        return bool(folders) and sealed and not any(self.inspect().values())

    def intact_directory(self, step: int) -> pathlib.Path:
        """Returns the folder to read a step from: that of the copy if it is damaged.

        A step without checksums is being saved, or of an earlier version.

        Raises:
          CheckpointError: The step is damaged and there is no copy of it.
        """
        folder, copy = self.directory / str(step), self.copies / str(step)
        if folder.exists() and not _is_sealed(folder):
            return self.directory
        reason = checksums.find_damage(folder)
        if reason is None:
            return self.directory
        if _is_sealed(copy) and checksums.find_damage(copy) is None:
            logging.warning("%s cannot be used (%s): its copy is.", folder, reason)
            return self.copies
        raise CheckpointError(
            f"{folder} is damaged ({reason}); continue its training with `deeprank "
            "train`, or give another step or run."
        )

    def inspect(self) -> dict[pathlib.Path, str | None]:
        """Returns what is wrong with each sealed step and copy, None if nothing is."""
        steps = sorted(_step_folders(self.directory), key=lambda path: int(path.name))
        folders = [*steps, *_step_folders(self.copies)]
        return {x: checksums.find_damage(x) for x in folders if _is_sealed(x)}

    def _clean(self) -> None:
        """Removes unfinished and damaged copies, and those of checkpoints now gone."""
        for scratch in self.copies.glob(".*.tmp"):
            shutil.rmtree(scratch)
        is_new = not _step_folders(self.directory)
        for copy in _step_folders(self.copies):
            # A kill may have come when the only step was moved for its copy.
            is_gone = is_new and not (self.damaged / copy.name).exists()
            if is_gone or checksums.find_damage(copy) is not None:
                shutil.rmtree(copy)

    def _has_sealed(self) -> bool:
        folders = [*_step_folders(self.directory), *_step_folders(self.copies)]
        return any(map(_is_sealed, folders))

    def _mend_step(self, folder: pathlib.Path, reason: str) -> None:
        """Replaces a damaged step by its copy, or sets it aside."""
        copy = self.copies / folder.name
        scratch = self._copy(copy) if copy.exists() else None
        moved = self._set_aside(folder)
        if scratch is not None:
            scratch.rename(folder)
            logging.warning("%s was damaged (%s): its copy is used.", folder, reason)
            return
        logging.warning(
            "%s is damaged (%s): moved to %s, and training continues from an older "
            "checkpoint, or from the start.",
            folder, reason, moved,
        )  # fmt: skip

    def _set_interrupted_aside(self, folder: pathlib.Path) -> None:
        """Moves a step that was not sealed away, in place of the last such one."""
        moved = self.damaged / "interrupted"
        shutil.rmtree(moved, ignore_errors=True)
        self.damaged.mkdir(exist_ok=True)
        folder.rename(moved)
        logging.warning(
            "%s was not saved to its end: moved to %s, and training continues from the "
            "checkpoint before it.",
            folder, moved,
        )  # fmt: skip

    def _set_aside(self, folder: pathlib.Path) -> pathlib.Path:
        """Moves a damaged folder away, and returns its new path."""
        self.damaged.mkdir(exist_ok=True)
        number, moved = 1, self.damaged / folder.name
        while moved.exists():
            number += 1
            moved = self.damaged / f"{folder.name}_{number}"
        folder.rename(moved)
        return moved

    def _copy(self, source: pathlib.Path) -> pathlib.Path:
        """Returns a checked copy of a sealed folder, to be renamed.

        Raises:
          OSError: It cannot be written; nothing is left of it.
        """
        scratch = self.copies / f".{source.name}.tmp"
        try:
            shutil.rmtree(scratch, ignore_errors=True)
            shutil.copytree(source, scratch)
            files.sync_all(scratch)
            if (reason := checksums.find_damage(scratch)) is not None:
                raise OSError(errno.EIO, f"the copy is wrong: {reason}", str(scratch))
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        return scratch


def _step_folders(directory: pathlib.Path) -> list[pathlib.Path]:
    with contextlib.suppress(FileNotFoundError):
        return [p for p in directory.iterdir() if p.name.isdigit()]
    return []


def _is_sealed(folder: pathlib.Path) -> bool:
    return (folder / checksums.CHECKSUMS).exists()


def _same_checksums(one: pathlib.Path, other: pathlib.Path) -> bool:
    contents = [
        files.read_bytes(x / checksums.CHECKSUMS, files.MAX_TEXT) for x in (one, other)
    ]
    return contents[0] == contents[1]
