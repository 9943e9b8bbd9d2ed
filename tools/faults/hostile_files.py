"""Hostile files among good images."""

import pathlib
import random
import resource
import shutil
import time

import numpy as np

from deeprank_jax.data.reader import BadImages, ImageReader
from deeprank_jax.inference import sources
from tools.faults import hostile_images
from tools.faults.samples import Samples
from tools.faults.stored import digest
from tools.faults.trial import Outcome, Trial, judge

# Largest time of the processor, and growth of memory in KiB.
_SECONDS, _MEMORY = 2.0, 2**20
# A busy machine takes longer than its processor works.
_PATIENCE = 10 * _SECONDS


class HostileFiles:
    """A file that harms its reader, in a folder of images that are read."""

    def prepare(self, samples: Samples, folder: pathlib.Path) -> None:
        """Reads the images alone."""
        self._images = samples.images / "class 00"
        self._expected = _read(self._images)

    def run(self, folder: pathlib.Path, rng: random.Random) -> Trial:
        """Reads the images with one hostile file among them."""
        name = rng.choice(sorted(hostile_images.KINDS))
        images = shutil.copytree(self._images, folder / "images")
        path = images / hostile_images.file_name(name)
        seed = rng.randrange(2**32)
        hostile_images.KINDS[name](path, np.random.default_rng(seed))
        start, before = time.process_time(), _memory()
        fault = f"the file {path.name}"
        names = [path.name]
        trial = judge(fault, names, lambda: _read(images), self._expected, _PATIENCE)
        seconds, growth = time.process_time() - start, _memory() - before
        if trial.outcome == Outcome.HARMLESS:
            return Trial(fault, Outcome.SILENT, "left out without a word")
        if seconds > _SECONDS or growth > _MEMORY:
            detail = f"{seconds:.1f} s of the processor, {growth:,} KiB of memory"
            return Trial(fault, Outcome.HUNG, detail)
        return trial


def _read(folder: pathlib.Path) -> str:
    """Returns a digest of the images that can be read."""
    records = sources.open_source(folder)
    bad = BadImages(None, len(records), max_share=1.0)
    with ImageReader(records, image_size=16, workers=1, bad_images=bad) as reader:
        images, is_whole = reader.load(np.arange(len(records)))
    return digest(images[is_whole])


def _memory() -> int:
    """Returns the most memory that this process has had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
