"""Folders of a run's checkpoints on disk: sealed, checked, copied, set aside.

Each step has a folder, which is sealed by checksums once it is on disk as a whole. The
best one has a copy in a folder beside it. A folder that has changed since it was sealed
is replaced by its copy, or set aside, so that training continues from an older step.
"""

import contextlib
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
        files.sync_folder(self.directory)

    def copy_best(self, step: int | None) -> None:
        """Copies a sealed step in place of the copy of the best one before it.

        Raises:
          OSError: The copy cannot be written, e.g. because the disk is full.
        """
        if step is None or (self.copies / str(step)).exists():
            return
        _replace_folder(self.directory / str(step), self.copies / str(step))
        for other in _step_folders(self.copies):
            if other.name != str(step):
                shutil.rmtree(other)

    def copied_step(self) -> int | None:
        """Returns the best step if it has a copy."""
        return max((int(p.name) for p in _step_folders(self.copies)), default=None)

    def mend(self) -> None:
        """Replaces damaged steps by their copies, and sets the others aside.

        A step without checksums was being sealed when its process was killed. If none
        has any they are of an earlier version, and get them now.
        """
        for step in self._unsealed_steps():
            self.seal(step)
        for step, reason in self._find_all_damage().items():
            folder, copy = self.directory / str(step), self.copies / str(step)
            if copy.exists() and checksums.find_damage(copy) is None:
                self._set_aside(folder)
                _replace_folder(copy, folder)
                logging.warning(
                    "%s was damaged (%s): its copy is used.", folder, reason
                )
            else:
                moved = self._set_aside(folder)
                logging.warning(
                    "%s is damaged (%s): moved to %s, and training continues from an "
                    "older checkpoint, or from the start.",
                    folder, reason, moved,
                )  # fmt: skip

    def check(self, step: int) -> None:
        """Checks that a step is as it was when it was sealed.

        Raises:
          CheckpointError: It is not.
        """
        reason = self._find_damage(self.directory / str(step))
        if reason is not None:
            raise CheckpointError(
                f"{self.directory / str(step)} is damaged ({reason}); run the same "
                "command again, to continue from a checkpoint that is not."
            )

    def intact_directory(self, step: int) -> pathlib.Path:
        """Returns the folder to read a step from: that of the copy if it is damaged.

        Raises:
          CheckpointError: The step is damaged and there is no copy of it.
        """
        folder, copy = self.directory / str(step), self.copies / str(step)
        reason = self._find_damage(folder)
        if reason is None:
            return self.directory
        if copy.exists() and checksums.find_damage(copy) is None:
            logging.warning("%s is damaged (%s): its copy is used.", folder, reason)
            return self.copies
        raise CheckpointError(
            f"{folder} is damaged ({reason}); continue its training with `deeprank "
            "train`, or give another step or run."
        )

    def inspect(self) -> dict[pathlib.Path, str | None]:
        """Returns what is wrong with each step and copy, None if nothing is."""
        steps = sorted(_step_folders(self.directory), key=lambda path: int(path.name))
        found = {folder: self._find_damage(folder) for folder in steps}
        copies = _step_folders(self.copies)
        return found | {folder: checksums.find_damage(folder) for folder in copies}

    def _find_all_damage(self) -> dict[int, str]:
        folders = {int(p.name): p for p in _step_folders(self.directory)}
        reasons = {step: self._find_damage(path) for step, path in folders.items()}
        return {step: reason for step, reason in reasons.items() if reason is not None}

    def _find_damage(self, folder: pathlib.Path) -> str | None:
        """Returns what is wrong with a step's folder, None if nothing is."""
        is_sealed = (folder / checksums.CHECKSUMS).exists()
        if not is_sealed and folder.exists() and self._unsealed_steps():
            return None
        return checksums.find_damage(folder)

    def _unsealed_steps(self) -> list[int]:
        """Returns all steps if none has checksums, else nothing."""
        folders = _step_folders(self.directory)
        sealed = [*folders, *_step_folders(self.copies)]
        if any((folder / checksums.CHECKSUMS).exists() for folder in sealed):
            return []
        return [int(folder.name) for folder in folders]

    def _set_aside(self, folder: pathlib.Path) -> pathlib.Path:
        """Moves a folder away, and returns its new path."""
        self.damaged.mkdir(exist_ok=True)
        number, moved = 1, self.damaged / folder.name
        while moved.exists():
            number += 1
            moved = self.damaged / f"{folder.name}_{number}"
        folder.rename(moved)
        return moved


def _step_folders(directory: pathlib.Path) -> list[pathlib.Path]:
    with contextlib.suppress(FileNotFoundError):
        return [p for p in directory.iterdir() if p.name.isdigit()]
    return []


def _replace_folder(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a sealed folder, so that the copy is there whole or not at all."""
    scratch = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, scratch)
    files.sync_all(scratch)
    scratch.rename(target)
    files.sync_folder(target.parent)
