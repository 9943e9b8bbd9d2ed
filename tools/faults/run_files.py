"""Damaged files of a finished run: results, config, test embeddings, log, ..."""

import contextlib
import csv
import dataclasses
import io
import json
import logging
import pathlib
import shutil
from unittest import mock

from deeprank_jax.data import leakage
from deeprank_jax.data.reader import BadImages
from deeprank_jax.errors import DataError
from deeprank_jax.experiments import compare_runs, runs
from deeprank_jax.training import metrics_writer, whitening
from deeprank_jax.training.checkpoints import Saved, read_network
from tools.faults.samples import Samples
from tools.faults.stored import Stored, digest

_STEP = 6
_RESULTS = ("config.json", "results.json", "intervals.json", "run.sha256")


class ComparedRun(Stored):
    """Run that is compared with another by its config, results and embeddings."""

    def create(self, samples: Samples, folder: pathlib.Path) -> None:
        """Copies all that a comparison reads; the other run is the sample itself."""
        self._other = samples.run
        _copy(samples.run, folder, *_RESULTS, "test_embeddings.npz")
        _copy(samples.run / "triplets", folder / "triplets", "test.csv")

    def read(self, folder: pathlib.Path) -> object:
        """Returns the comparison, unless it says that it does without something."""
        comparison = compare_runs.compare_runs([folder, self._other])
        if comparison.note.startswith("Values alone"):
            raise DataError(comparison.note)
        cells = {
            key: [dataclasses.asdict(cell) for cell in cells]
            for key, cells in comparison.metrics.items()
        }
        return comparison.config, cells, comparison.note


class PlannedRun(Stored):
    """Finished run of a plan, which is reused with the same settings."""

    _SETTINGS = {"seed": 0}  # noqa: RUF012

    def create(self, samples: Samples, folder: pathlib.Path) -> None:
        """Writes the settings as the plan does, and copies the sample's results."""
        self._plan = samples.folder / "plan.py"
        self._plan.write_text("from deeprank_jax.configs.base import get_config\n")
        self._common = samples.overrides()
        self._run = samples.run
        with self._training(folder / "arm"):
            self._plans(folder).train("arm", self._SETTINGS)

    def read(self, folder: pathlib.Path) -> object:
        """Returns the results and an interval."""
        with self._training(folder / "arm"):
            results = self._plans(folder).train("arm", self._SETTINGS)
        return results, self._plans(folder).interval("arm", "retrieval/map@r")

    def _plans(self, folder: pathlib.Path) -> runs.Runs:
        return runs.Runs(self._plan, folder, self._common)

    @contextlib.contextmanager
    def _training(self, workdir: pathlib.Path):
        """Lets the process that would train copy what it would write."""
        process = mock.Mock(returncode=0)
        copy = lambda *args, **options: _copy(self._run, workdir, *_RESULTS) or process
        with mock.patch.object(runs.children, "run", copy):
            yield


class Metrics(Stored):
    """Log of a run that goes on from its middle."""

    def create(self, samples: Samples, folder: pathlib.Path) -> None:
        """Copies the log, and notes its checksum as a checkpoint does."""
        _copy(samples.run, folder, "metrics.jsonl")
        writer = metrics_writer.MetricsWriter(folder, first_step=_STEP)
        self._checksum = writer.checksum
        writer.close()

    def read(self, folder: pathlib.Path) -> object:
        """Returns the entries from which the run goes on, unless it warns of them."""
        with mock.patch.object(metrics_writer.logging, "warning") as warning:
            writer = metrics_writer.MetricsWriter(
                folder, first_step=_STEP, checksum=self._checksum
            )
        writer.close()
        if warning.called:
            text, *values = warning.call_args.args
            raise DataError(text % tuple(values))
        return writer.checksum


class StoredLeakage(Stored):
    """Images that the splits share, which are searched for once."""

    _KEY = {"train": "72-0123456789ab", "max_images": 100}  # noqa: RUF012

    def create(self, samples: Samples, folder: pathlib.Path) -> None:
        """Writes some."""
        self.read(folder)

    def read(self, folder: pathlib.Path) -> object:
        """Returns the leakage; a search for it gives the same each time."""
        path, key = folder / "leakage.json", self._KEY
        leakages = leakage.read_leakage(path, key)
        if leakages is None:
            copies = [(f"a/{i}.png", f"b/{i}.png", i / 7) for i in range(8)]
            leakages = {
                split: leakage.Leakage(
                    num_images=120,
                    num_classes=12,
                    seen_classes=["one", "two"],
                    namesakes=[("cat", "Cat")],
                    copies=copies,
                )
                for split in ("validation", "test")
            }
            leakage.write_leakage(path, leakages, key)
        return json.dumps({name: dataclasses.asdict(x) for name, x in leakages.items()})


class BadImageList(Stored):
    """List of the images that cannot be read, which a run that goes on continues."""

    _ROWS = tuple(
        ("train", f"class {i % 3}/image, {i}.png", "not an image") for i in range(9)
    )

    def create(self, samples: Samples, folder: pathlib.Path) -> None:
        """Lists some."""
        self.read(folder)

    def read(self, folder: pathlib.Path) -> object:
        """Returns which of the images are listed once the run has met all again."""
        path = folder / "bad_images.csv"
        bad = BadImages(path, 100, max_share=1.0)
        logger = logging.getLogger("absl")
        level = logger.level
        logger.setLevel(logging.ERROR)  # It names each image, not the list.
        try:
            for row in self._ROWS:
                bad.add(*row)
        finally:
            logger.setLevel(level)
        text = path.read_text(errors="replace")
        rows = {tuple(row[:2]) for row in csv.reader(io.StringIO(text, newline=""))}
        return [row[:2] in rows for row in self._ROWS]


class Whitening(Stored):
    """Whitening of a run's network, as it is exported."""

    def create(self, samples: Samples, folder: pathlib.Path) -> None:
        """Copies the whitening."""
        _copy(samples.run, folder, "whitening.npz", "run.sha256")
        self._network: Saved = read_network(samples.run)

    def read(self, folder: pathlib.Path) -> object:
        """Returns a digest of the whitened network."""
        where = folder / "checkpoints" / "8"
        saved = whitening.with_whitening(
            dataclasses.replace(self._network, where=where)
        )
        return digest(*(saved.arrays[name] for name in sorted(saved.arrays)))


def _copy(source: pathlib.Path, target: pathlib.Path, *names: str) -> None:
    target.mkdir(exist_ok=True)
    for name in names:
        if (source / name).exists():
            shutil.copy2(source / name, target / name)
