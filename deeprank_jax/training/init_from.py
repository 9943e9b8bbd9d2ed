"""Start from another run's network, the second of the paper's two stages."""

from collections.abc import Iterable, Mapping, Sequence
import pathlib
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp

from deeprank_jax.errors import CheckpointError
from deeprank_jax.training import checkpoints
from deeprank_jax.training.step import TrainState, network_arrays, with_network_arrays

_MAX_NAMED = 5


def load_state(
    state: TrainState, path: str | pathlib.Path, trunk: Mapping[str, Any] | None = None
) -> TrainState:
    """Loads another run's network into a state that has not been trained yet.

    The trunk has to be the same, variable by variable. Other variables are loaded, too,
    if name and shape are equal; the rest, e.g. the classes of the first stage, keep
    their values. The log lists both. Steps and optimizer start anew.

    Args:
      state: Train state from `create_train_state`.
      path: Workdir of a run, its checkpoints, or one step of these.
      trunk: `config.model.trunk`, which has to be that of the other run: options that
        change no shape still change the network's outputs.

    Raises:
      CheckpointError: No checkpoint is there, or it has another trunk.
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
        "Starting from %s. Loaded: the trunk (%d variables), %s. Kept as they were: "
        "%s. Not loaded: %s.",
        saved.where,
        sum(_is_of_trunk(name) for name in fitting),
        _some([name for name in fitting if not _is_of_trunk(name)]),
        _some(ours.keys() - fitting),
        _some(saved.arrays.keys() - fitting),
    )
    return with_network_arrays(state, new)


def _check_trunk(
    ours: Mapping[str, jax.Array],
    saved: checkpoints.Saved,
    trunk: Mapping[str, Any] | None,
) -> None:
    """Checks that the checkpoint has the same trunk.

    Raises:
      CheckpointError: It has another one.
    """
    wrong = []
    # The power of a pooling may be new, or not needed any more.
    trunks = filter(_is_of_trunk, ours.keys() | saved.arrays.keys())
    trunks = (name for name in trunks if "/pooling/" not in name)
    for name in sorted(trunks, key=_shorten):
        saved_shape, shape = (
            tuple(x[name].shape) if name in x else "missing"
            for x in (saved.arrays, ours)
        )
        if saved_shape != shape:
            wrong.append(f"{_shorten(name)} ({saved_shape} instead of {shape})")
    if trunk is not None:
        prefix = "model.trunk."
        options = {
            key.removeprefix(prefix): value
            for key, value in saved.config.items()
            if key.startswith(prefix)
        }
        wrong += [
            f"{prefix}{key} ({options.get(key)} instead of {value})"
            for key, value in trunk.items()
            if key != "pooling"
            and options.get(key) != (list(value) if isinstance(value, tuple) else value)
        ]
        wrong += [
            f"{prefix}{key} ({options[key]} instead of none)"
            for key in options.keys() - trunk - {"pooling"}
        ]
    if wrong:
        raise CheckpointError(
            f"config.init_from={saved.where} has another network, whose trunk differs "
            f"in {_join(wrong)}: set config.model.trunk and "
            "config.data.image_size as in that run, or start from another."
        )


def _is_of_trunk(name: str) -> bool:
    return name.split("/")[1] == "trunk"


def _shorten(name: str) -> str:
    return name.split("/", 1)[1].removesuffix("/value")


def _some(names: Iterable[str]) -> str:
    return _join(sorted(map(_shorten, names))) or "nothing"


def _join(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MAX_NAMED} more" if len(texts) > _MAX_NAMED else ""
    return ", ".join(texts[:_MAX_NAMED]) + more
