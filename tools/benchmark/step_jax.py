"""Our side of `tools.benchmark step`: the train step compiled from a config."""

from collections.abc import Callable

from deeprank_jax.distributed import backend, devices

backend.configure_backend()

import jax  # noqa: E402  Reads its flags when it starts.
import ml_collections  # noqa: E402
import numpy as np  # noqa: E402

from deeprank_jax.configs import emoji_paper  # noqa: E402
from deeprank_jax.training import experiment, network, tasks  # noqa: E402
from deeprank_jax.training import step as step_lib  # noqa: E402
from tools.benchmark import step_cases  # noqa: E402


def create_config(case: step_cases.Case) -> ml_collections.ConfigDict:
    """Returns the config of a case."""
    config = emoji_paper.get_config()
    config.batch_size = case.batch_size
    config.data.image_size = case.size
    config.model.trunk = {"name": case.trunk}
    config.model.paths = case.paths
    config.model.embedding_dim = case.embedding_dim
    config.loss = dict(
        name="triplet_hinge", margin=step_cases.MARGIN, miner=dict(name="sampled")
    )
    config.optimizer.learning_rate = step_cases.LEARNING_RATE
    config.optimizer.decoupled_weight_decay = step_cases.WEIGHT_DECAY
    return config


def prepare(name: str) -> Callable[[], object]:
    """Returns a function that runs a case once."""
    case = step_cases.CASES[name]
    config = create_config(case)
    task = tasks.create_task(config, experiment.create_run_relevance(config))
    graphdef, tx, state = network.create_network(config, task.create_model)
    state = devices.replicate(state)
    rng = np.random.default_rng(0)
    images = rng.integers(
        0, 256, (case.batch_size, 3, case.size, case.size, 3), np.uint8
    )
    if not case.trains:
        embed = devices.pmap_embed(step_lib.make_embed_step(graphdef))
        return lambda: embed(state, images[:, 0])
    step = devices.pmap_step(step_lib.make_train_step(graphdef, tx, task.objective()))
    attributes = np.zeros((case.batch_size, 3, 3), np.int32)
    batch = devices.split_over_devices({"images": images, "attributes": attributes})
    current = [state]

    def once() -> None:
        current[0], metrics = step(current[0], batch)
        jax.block_until_ready((current[0], metrics))

    return once


if __name__ == "__main__":
    step_cases.serve(prepare)
