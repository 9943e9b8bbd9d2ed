"""Optimizers of a config: schedule, momentum and weight decay.

Two kinds of weight decay share one name elsewhere; here each has its own:

- `l2_penalty` is the paper's lambda: the objective gains `l2_penalty * ||W||^2`, so
  the gradient gains `2 * l2_penalty * W`, before momentum or Adam's scaling.
- `decoupled_weight_decay` is AdamW's: each update also takes away
  `learning_rate * decoupled_weight_decay * W`, after them.

Both act on kernels only, never on biases or BatchNorm.

`trunk_scale` multiplies the learning rate of the trunk, e.g. .1 for a pretrained one; 0
freezes it.
"""

from collections.abc import Mapping
from typing import Any

import jax
import optax

from deeprank_jax.errors import ConfigError

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("constant", "cosine", "linear")
# Factor of the learning rate of a `GeM` pooling's power, as in its authors' code.
_POWER_SCALE = 10.0


def make_schedule(
    *, name: str, learning_rate: float, warmup_steps: int, num_steps: int
) -> optax.Schedule:
    """Returns a schedule: linear warm-up from 0, then constant or down to 0.

    Args:
      name: Kind of decay after the warm-up, `"constant"`, `"cosine"` or `"linear"`.
      learning_rate: Highest rate.
      warmup_steps: Steps in which the rate rises from 0; may be 0.
      num_steps: Steps of the whole run; the decay ends there.

    Raises:
      ConfigError: No such schedule exists, or the warm-up is as long as the run.
    """
    if name not in SCHEDULES:
        raise ConfigError(
            f"config.schedule.name is {name!r}; choose one of {SCHEDULES}."
        )
    if warmup_steps >= num_steps:
        raise ConfigError(
            f"config.schedule.warmup_steps is {warmup_steps}, which leaves nothing of "
            f"the run's {num_steps} steps."
        )
    rest = num_steps - warmup_steps
    after = {
        "constant": optax.constant_schedule(learning_rate),
        "cosine": optax.cosine_decay_schedule(learning_rate, rest),
        "linear": optax.linear_schedule(learning_rate, 0.0, rest),
    }[name]
    warmup = optax.linear_schedule(0.0, learning_rate, max(warmup_steps, 1))
    return optax.join_schedules([warmup, after], [warmup_steps])


def create_optimizer(
    options: Mapping[str, Any], schedule: optax.Schedule, *, has_gem: bool = False
) -> optax.GradientTransformation:
    """Returns the optimizer.

    Args:
      options: Section `config.optimizer`: `name` is `"sgd"` (with `momentum` and
        `nesterov`) or `"adamw"` (with `b1` and `b2`); `clip_norm` is the largest norm
        of the gradient, 0 for no limit; for the others see the module.
      schedule: Learning rate by step.
      has_gem: True for a network with `GeM` poolings, whose powers have ten times the
        learning rate.

    Raises:
      ConfigError: No such optimizer exists, or `trunk_scale` or `clip_norm` is
        negative.
    """
    _check_options(options)
    parts = []
    if options["clip_norm"]:
        parts.append(optax.clip_by_global_norm(options["clip_norm"]))
    if options["l2_penalty"]:
        # The gradient of l2_penalty * ||W||^2.
        decay = 2.0 * options["l2_penalty"]
        parts.append(optax.add_decayed_weights(decay, mask=kernel_mask))
    if options["name"] == "sgd":
        parts.append(optax.trace(options["momentum"], nesterov=options["nesterov"]))
    else:
        parts.append(optax.scale_by_adam(options["b1"], options["b2"]))
    if options["decoupled_weight_decay"]:
        decay = options["decoupled_weight_decay"]
        parts.append(optax.add_decayed_weights(decay, mask=kernel_mask))
    parts.append(optax.scale_by_learning_rate(schedule))
    if has_gem:
        parts.append(optax.masked(optax.scale(_POWER_SCALE), power_mask))
    trunk_scale = options["trunk_scale"]
    if trunk_scale not in (0.0, 1.0):
        parts.append(optax.masked(optax.scale(trunk_scale), trunk_mask))
    tx = optax.chain(*parts)
    if trunk_scale == 0.0:
        # Around the whole, so that no moments of frozen parameters are kept.
        return optax.multi_transform({True: optax.set_to_zero(), False: tx}, trunk_mask)
    return tx


def _check_options(options: Mapping[str, Any]) -> None:
    """Checks the options of an optimizer.

    Raises:
      ConfigError: As `create_optimizer`.
    """
    trunk_scale, name = options["trunk_scale"], options["name"]
    if trunk_scale < 0:
        raise ConfigError(
            f"config.optimizer.trunk_scale must be at least 0, got {trunk_scale}; it "
            "multiplies the trunk's learning rate, and 0 freezes the trunk."
        )
    if name not in OPTIMIZERS:
        raise ConfigError(
            f"config.optimizer.name is {name!r}; choose one of {OPTIMIZERS}."
        )
    if options["clip_norm"] < 0:
        raise ConfigError(
            "config.optimizer.clip_norm must be at least 0, which is no limit, got "
            f"{options['clip_norm']}."
        )


def kernel_mask(params: optax.Params) -> optax.Params:
    """Returns the tree of `params` with True at kernels, False elsewhere."""
    return jax.tree.map_with_path(
        lambda path, _: "kernel" in jax.tree_util.keystr(path), params
    )


def power_mask(params: optax.Params) -> optax.Params:
    """Returns the tree of `params` with True at the powers of `GeM` poolings."""
    return jax.tree.map_with_path(
        lambda path, _: (
            "pooling/power" in jax.tree_util.keystr(path, simple=True, separator="/")
        ),
        params,
    )


def trunk_mask(params: optax.Params) -> optax.Params:
    """Returns the tree of `params` with True in the trunk, False elsewhere."""
    return jax.tree.map_with_path(
        lambda path, _: jax.tree_util.keystr(path[:1], simple=True) == "trunk", params
    )


def stop_trunk_gradient(params: optax.Params) -> optax.Params:
    """Returns `params` with no gradient flowing to the trunk's."""
    return jax.tree.map(
        lambda x, in_trunk: jax.lax.stop_gradient(x) if in_trunk else x,
        params,
        trunk_mask(params),
    )
