from helpers import shrunk
import pytest

from deeprank_jax.configs import base
from deeprank_jax.training import experiment
from deeprank_jax.training import step as step_lib


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {
                "seed": 3,
                "accumulate_steps": 2,
                "model.remat": True,
                "optimizer.trunk_scale": 0.0,
                "optimizer.ema_decay": 0.9,
            },
            dict(seed=3, accumulate=2, remat=True, freeze_trunk=True, ema_decay=0.9),
        ),
        (
            {"seed": 4, "optimizer.trunk_scale": 0.1},
            dict(seed=4, accumulate=1, remat=False, freeze_trunk=False, ema_decay=0.0),
        ),
    ],
    ids=["all", "none"],
)
def test_the_step_is_made_as_the_config_says(values, expected, tmp_path, monkeypatch):
    config = shrunk.shrink(base.get_config(), **values)
    config.data.dir = str(shrunk.write_images(tmp_path / "images"))
    make, given = step_lib.make_train_step, []

    def spy(*args, **options):
        given.append(options)
        return make(*args, **options)

    monkeypatch.setattr(step_lib, "make_train_step", spy)
    with experiment.create_experiment(config, tmp_path / "run"):
        assert given == [expected]
