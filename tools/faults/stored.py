"""Base of the kinds that damage a file which is written once and believed later."""

import abc
import hashlib
import pathlib
import random
import shutil

import numpy as np

from tools.faults import damage
from tools.faults.samples import Samples
from tools.faults.trial import Trial, judge


class Stored(abc.ABC):
    """Files in a folder. A trial damages one of a copy, and reads the copy.

    Attributes:
      seconds: Time that a reading may take.
    """

    seconds = 60.0

    @abc.abstractmethod
    def create(self, samples: Samples, folder: pathlib.Path) -> None:
        """Writes the files into an empty folder."""

    @abc.abstractmethod
    def read(self, folder: pathlib.Path) -> object:
        """Returns the result of using the files, to be compared with `==`."""

    def files(self, folder: pathlib.Path) -> list[pathlib.Path]:
        """Returns the files that may be damaged."""
        return damage.list_files(folder)

    def prepare(self, samples: Samples, folder: pathlib.Path) -> None:
        """Writes the files, and reads a copy of them undamaged."""
        self._whole = folder / "whole"
        self._whole.mkdir(parents=True)
        self.create(samples, self._whole)
        copy = shutil.copytree(self._whole, folder / "undamaged" / "whole")
        self._expected = self.read(copy)

    def run(self, folder: pathlib.Path, rng: random.Random) -> Trial:
        """Damages a copy and reads it."""
        copy = shutil.copytree(self._whole, folder / self._whole.name)
        path = rng.choice(self.files(copy))
        name = path.relative_to(copy).as_posix()
        fault = damage.damage(path, rng, name)
        names = [path.name, *name.split("/")[:1], str(copy)]
        return judge(
            fault, names, lambda: self.read(copy), self._expected, self.seconds
        )


def digest(*arrays: np.ndarray) -> str:
    """Returns a digest of arrays: their shapes, types and bits."""
    content = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        content.update(f"{array.dtype}{array.shape}".encode())
        content.update(array.tobytes())
    return content.hexdigest()
