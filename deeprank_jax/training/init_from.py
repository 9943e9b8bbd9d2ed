"""Starting from what another run has learned: the second of the paper's two stages."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from absl import logging
import jax.numpy as jnp

from deeprank_jax.training import checkpoints
from deeprank_jax.training.step import TrainState, network_arrays, with_network_arrays

_MAX_NAMED = 5


def load_state(
    state: TrainState, path: str | pathlib.Path, trunk: Mapping[str, Any] | None = None
) -> TrainState:
    """Puts another run's network into a state that has not been trained yet.

    The trunk has to be the same, variable by variable. What else has the same name
    and shape is taken, too; what has not, e.g. the classes of the first stage, stays
    as it is. The log says what was and what was not taken. Steps and optimizer start
    anew.

    Args:
      state: of `create_train_state`.
      path: a run's workdir, its checkpoints, or one step of these.
      trunk: `config.model.trunk`, which has to be that of the other run: options that
        change no shape change what a network computes all the same.

    Raises:
      CheckpointError: there is no checkpoint, or it is of another trunk.
    """
    saved = checkpoints.read_network(path)
    ours = network_arrays(state)
    _check_trunk(ours, saved, trunk)
    fitting = {
        name
        for name, leaf in ours.items()
        if name in saved.arrays and saved.arrays[name].shape == leaf.shape
    }
    new = {
        name: jnp.asarray(saved.arrays[name], leaf.dtype) if name in fitting else leaf
        for name, leaf in ours.items()
    }
    logging.info(
        "Starting from %s. Taken: the trunk (%d variables), %s. Left as they were: %s. "
        "Not taken from there: %s.",
        saved.where,
        sum(_is_of_trunk(name) for name in fitting),
        _some([name for name in fitting if not _is_of_trunk(name)]),
        _some(ours.keys() - fitting),
        _some(saved.arrays.keys() - fitting),
    )
    return with_network_arrays(state, new)


def _check_trunk(
    ours: Mapping[str, Any], saved: checkpoints.Saved, trunk: Mapping[str, Any] | None
) -> None:
    """Checks that the checkpoint's trunk is ours.

    Raises:
      CheckpointError: it is not.
    """
    wrong = []
    trunks = filter(_is_of_trunk, ours.keys() | saved.arrays.keys())
    for name in sorted(trunks, key=_shorten):
        theirs, own = (
            tuple(x[name].shape) if name in x else "not there"
            for x in (saved.arrays, ours)
        )
        if theirs != own:
            wrong.append(f"{_shorten(name)} ({theirs} instead of {own})")
    if trunk is not None:
        prefix = "model.trunk."
        was = {
            key.removeprefix(prefix): value
            for key, value in saved.config.items()
            if key.startswith(prefix)
        }
        wrong += [
            f"{prefix}{key} ({was.get(key)} instead of {value})"
            for key, value in trunk.items()
            if was.get(key) != (list(value) if isinstance(value, tuple) else value)
        ]
        wrong += [
            f"{prefix}{key} ({was[key]} instead of none)" for key in was.keys() - trunk
        ]
    if wrong:
        raise checkpoints.CheckpointError(
            f"config.init_from={saved.where} is of another network, whose trunk "
            f"differs in {_join(wrong)}: set config.model.trunk and "
            "config.data.image_size as in that run, or start from another."
        )


def _is_of_trunk(name: str) -> bool:
    return name.split("/")[1] == "trunk"


def _shorten(name: str) -> str:
    return name.split("/", 1)[1].removesuffix("/value")


def _some(names: Any) -> str:
    return _join(sorted(map(_shorten, names))) or "nothing"


def _join(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MAX_NAMED} more" if len(texts) > _MAX_NAMED else ""
    return ", ".join(texts[:_MAX_NAMED]) + more
