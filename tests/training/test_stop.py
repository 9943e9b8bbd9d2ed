"""Signals during the loop lose no step, wherever they come."""

import os
import signal
import time

from helpers import shrunk
import pytest

from deeprank_jax.evaluation import split
from deeprank_jax.training import loop

RARE = {"num_steps": 100, "checkpoint_every": 1000, "eval_every": 1000}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return shrunk.write_images(tmp_path_factory.mktemp("images"), num_classes=12)


def saved_steps(workdir):
    return [int(x.name) for x in (workdir / "checkpoints").iterdir()]


def test_a_signal_after_a_step_is_noticed_at_the_next(images, tmp_path, monkeypatch):
    """And not between the two, where nothing would be saved."""
    is_due = loop._is_due

    def signal_at_five(config, step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return is_due(config, step)

    monkeypatch.setattr(loop, "_is_due", signal_at_five)
    with pytest.raises(loop.Stopped, match="continue from step 6"):
        loop.train(shrunk.create_config(images, **RARE), tmp_path)
    assert saved_steps(tmp_path) == [6]


@pytest.mark.parametrize("name", ["measure", "embed"])
def test_a_slow_validation_is_interrupted(images, tmp_path, monkeypatch, name):
    """Anywhere in it, and the network is saved without metrics."""

    begun = []

    def slow(*args, **options):
        begun.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(60)

    monkeypatch.setattr(split.SplitEvaluation, name, slow)
    config = shrunk.create_config(images, **{**RARE, "eval_every": 4})
    with pytest.raises(loop.Stopped, match=r"SIGHUP: stopped.*continue from step 4"):
        loop.train(config, tmp_path)
    assert time.monotonic() - begun[0] < 30
    assert saved_steps(tmp_path) == [4]
    assert not (tmp_path / "checkpoints" / "4" / "metrics").exists()
