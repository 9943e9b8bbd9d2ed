"""Runs that stop at a checkpoint, and are to go on from it."""

import pathlib

import ml_collections
import pytest

from deeprank_jax.training import checkpoints, loop


class _StoppedError(Exception):
    """A run has saved the checkpoint at which it is to stop."""


def train_until_saved(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, step: int
) -> None:
    """Trains until the checkpoint of a step is saved, without what follows.

    Args:
      config: Whole configuration.
      workdir: Folder of the run.
      step: Step of the checkpoint.
    """
    save = checkpoints.Checkpoints.save

    def save_and_stop(self, now, *args):
        save(self, now, *args)
        if now == step:
            self.wait()
            raise _StoppedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "save", save_and_stop)
        with pytest.raises(_StoppedError):
            loop.train(config, workdir)
