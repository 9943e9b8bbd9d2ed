"""Files of a run."""

import dataclasses
import pathlib
from typing import Any

from absl import logging
import numpy as np

from deeprank_jax import checksums, files
from deeprank_jax.config import FIRST_STAGE
from deeprank_jax.errors import DataError
from deeprank_jax.files import locks

_REPORT, _VERDICT = "report/index.html", "report/verdict.txt"


@dataclasses.dataclass(frozen=True)
class Workdir:
    """Folder of a run, with a property for each file in it.

    Attributes:
      path: Path of the folder.
    """

    path: pathlib.Path

    @property
    def config(self) -> pathlib.Path:
        """Config of the run, as JSON."""
        return self.path / "config.json"

    @property
    def metrics(self) -> pathlib.Path:
        """Training and validation metrics, one JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> pathlib.Path:
        """Folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> pathlib.Path:
        """Folder of the checkpoints, with one folder per step."""
        return self.path / "checkpoints"

    @property
    def first_stage(self) -> pathlib.Path:
        """Folder of the first stage's run, if the same command trains both."""
        return self.path / FIRST_STAGE

    @property
    def whitening(self) -> pathlib.Path:
        """Whitening of the best step: `matrix [D, D]`, and a digest of its network."""
        return self.path / "whitening.npz"

    @property
    def triplets(self) -> pathlib.Path:
        """Folder of the evaluation triplets, with one file per split."""
        return self.path / "triplets"

    @property
    def bad_images(self) -> pathlib.Path:
        """Images that could not be read, and the reason of each."""
        return self.path / "bad_images.csv"

    @property
    def leakage(self) -> pathlib.Path:
        """Images of validation and test that are copies of training images."""
        return self.path / "leakage.json"

    @property
    def images(self) -> pathlib.Path:
        """Digests of the images that the run began with."""
        return self.path / "images.json"

    @property
    def results(self) -> pathlib.Path:
        """Final metrics of the model and its baselines."""
        return self.path / "results.json"

    @property
    def intervals(self) -> pathlib.Path:
        """Confidence intervals of the final metrics."""
        return self.path / "intervals.json"

    @property
    def version(self) -> pathlib.Path:
        """Version of this project that measured the run and wrote its report."""
        return self.path / "version.txt"

    @property
    def test_embeddings(self) -> pathlib.Path:
        """Embeddings of the test split, `embeddings [N, D]` and `ok [N]`."""
        return self.path / "test_embeddings.npz"

    @property
    def checksums(self) -> pathlib.Path:
        """Checksums of the config, the results, the whitening and the report."""
        return self.path / checksums.RUN_CHECKSUMS

    @property
    def report(self) -> pathlib.Path:
        """Folder of the report."""
        return self.path / "report"

    @property
    def verdict(self) -> pathlib.Path:
        """Verdict at the top of the report, and a note on what it rests on."""
        return self.path / _VERDICT

    def locked(self) -> locks.Lock:
        """Keeps a second run out of the folder until the lock is released.

        Raises:
          LockedError: Another process trains in the folder.
          WriteError: The lock cannot be created.
        """
        return locks.Lock(
            self.path / "lock",
            lambda who: (
                f"{who} is training in {self.path}: wait until it has ended, or give "
                "another --workdir."
            ),
        )

    def seal(self) -> None:
        """Lists the checksums of the config, and of the results if they are there.

        Before the results are written, they have to be unsealed.
        """
        names = [path.name for path in (self.config, *self._made) if path.exists()]
        checksums.list_checksums(self.checksums, names)

    def seal_finished(self) -> None:
        """Lists the checksum of the report, too, the last file of a run."""
        paths = [path for path in self._finished if path.exists()]
        names = [path.relative_to(self.path).as_posix() for path in paths]
        checksums.list_checksums(self.checksums, names)

    def is_finished(self) -> bool:
        """Returns whether results and report are there as the run left them."""
        try:
            sums = checksums.read_checksums(self.path, self.checksums.name)
            needed = {*self._measured, self.version}
            names = {path.relative_to(self.path).as_posix() for path in needed}
            if not names | {_REPORT, _VERDICT} <= sums.keys():
                return False
            digests = {name: checksums.file_digest(self.path / name) for name in sums}
        except (OSError, ValueError):
            return False
        return digests == sums

    def unseal(self) -> None:
        """Lists the checksum of the config alone."""
        checksums.list_checksums(self.checksums, [self.config.name])

    def remove_damaged(self) -> None:
        """Removes results that have changed, which the end of training makes anew."""
        for path in self._made:
            try:
                checksums.check_listed(path)
            except ValueError as error:
                logging.warning("%s: %s; it is made anew.", path, error)
                path.unlink(missing_ok=True)

    @property
    def _finished(self) -> tuple[pathlib.Path, ...]:
        """Config, and files that the end of training writes, with the report."""
        report = (self.path / _REPORT, self.verdict)
        return self.config, *self._made, *report, self.version

    @property
    def _made(self) -> tuple[pathlib.Path, ...]:
        """Files that the end of training writes."""
        return *self._measured, self.whitening

    @property
    def _measured(self) -> tuple[pathlib.Path, ...]:
        """Files of the metrics and the embeddings."""
        return self.results, self.intervals, self.test_embeddings


def read_json(path: pathlib.Path) -> Any:
    """Returns a JSON object that a run has written.

    Raises:
      FileNotFoundError: There is no such file, and none was written.
      DataError: The file has changed since it was written.
    """
    try:
        checksums.check_listed(path)
        return checksums.unseal_json(files.read_json(path))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def read_embeddings(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the embeddings `[N, D]` and `ok [N]` of a run's `test_embeddings.npz`.

    Raises:
      FileNotFoundError: There is no such file, and none was written.
      DataError: The file has changed since it was written.
    """
    try:
        checksums.check_listed(path)
        arrays = checksums.read_arrays(path)
        return arrays["embeddings"], arrays["ok"]
    except (ValueError, KeyError) as error:
        raise _damaged(path, error) from error


def _damaged(path: pathlib.Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read ({error}); copy it again, or run the training command "
        "again, which writes it anew."
    )
