"""Starting from what another run has learned: the second of the paper's two stages."""

import dataclasses
import pathlib
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp

from deeprank_jax import checkpoints
from deeprank_jax.train_step import TrainState

_MAX_NAMED = 5


def load_state(state: TrainState, path: str | pathlib.Path) -> TrainState:
    """Puts another run's network into a state that has not been trained yet.

    The trunk has to be the same, variable by variable. What else has the same name
    and shape is taken, too; what has not, e.g. the classes of the first stage, stays
    as it is. The log says what was and what was not taken. Steps and optimizer start
    anew.

    Args:
      state: of `create_train_state`.
      path: a run's workdir, its checkpoints, or one step of these.

    Raises:
      CheckpointError: there is no checkpoint, or it is of another trunk.
    """
    found, where = checkpoints.read_arrays(path)
    parts = {"params": state.params, "model_state": state.model_state}
    leaves, structure = jax.tree.flatten_with_path(parts)
    taken, kept, differing, new = [], [], [], []
    for key_path, leaf in leaves:
        name = jax.tree_util.keystr(key_path, simple=True, separator="/")
        array = found.get(name)
        own = name.split("/", 1)[1].removesuffix("/value")
        if array is not None and array.shape == leaf.shape:
            taken.append(own)
            new.append(jnp.asarray(array, leaf.dtype))
            continue
        what = "not there" if array is None else str(array.shape)
        (differing if own.startswith("trunk/") else kept).append(
            f"{own} ({what} instead of {leaf.shape})"
        )
        new.append(leaf)
    _check_trunk(found, taken, differing, where)
    logging.info(
        "Starting from %s: %d of %d variables taken; left as they were: %s.",
        where,
        len(taken),
        len(leaves),
        _some(kept) or "none",
    )
    return dataclasses.replace(state, **jax.tree.unflatten(structure, new))


def _check_trunk(
    found: dict[str, Any], taken: list[str], differing: list[str], where: pathlib.Path
) -> None:
    """Checks that the whole trunk was taken, and there is no more of it."""
    names = {
        name.split("/", 1)[1].removesuffix("/value")
        for name in found
        if name.startswith(("params/trunk/", "model_state/trunk/"))
    }
    more = sorted(names - set(taken) - {x.split(" ", 1)[0] for x in differing})
    wrong = [*sorted(differing), *(f"{name} (only in the checkpoint)" for name in more)]
    if wrong:
        raise checkpoints.CheckpointError(
            f"config.init_from={where} is of another network, whose trunk differs in "
            f"{_some(wrong)}: set config.model.trunk and config.data.image_size as in "
            "that run, or start from another."
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more
