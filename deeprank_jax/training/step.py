"""The compiled train step: one pure function from state to state."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, NamedTuple, Protocol

from flax import nnx
import jax
import jax.numpy as jnp
import optax

from deeprank_jax.distributed.devices import DATA_AXIS
from deeprank_jax.models.jit_once import jit_once
from deeprank_jax.models.layers import BLOCK_OUTPUT, l2_normalize
from deeprank_jax.training import optimizers

Array = jax.Array
Batch = Mapping[str, Array]


class Mean(NamedTuple):
    """A metric that is a mean over some of a batch, none of which may be in a part.

    Attributes:
      total: `[]` float, sum of the values that count.
      count: `[]` number of these values.
    """

    total: Array
    count: Array


# Of a step, or of a device's share or a part of its batch; an array or a `Mean`.
Metrics = dict[str, Any]
# From parameters, model state, images and key to outputs and the new model state.
Forward = Callable[..., tuple[Array, nnx.State]]
# Variables that a batch changes without a gradient: of the model, and the memory.
Changed = tuple[nnx.State, Mapping[str, Array]]
# From parameters, changed variables, batch, step and key to gradients, the new changed
# variables, a mask of finite groups, and metrics.
Gradients = Callable[..., tuple[nnx.State, Changed, Array, Metrics]]
# Separates the keys of dropout from those of the loss.
_DROPOUT = 2**31 - 1


class Objective(Protocol):
    """Loss and training metrics of a batch."""

    def __call__(
        self, outputs: Array, batch: Batch, *, step: Array, key: Array
    ) -> tuple[Array, Metrics]:
        """Returns the loss of each group of images, and further metrics.

        Args:
          outputs: `[B, n, D]` float32, the network's outputs for each image.
          batch: Arrays of the device's share of the batch.
          step: `[]` int32, number of batches before this one.
          key: Random key of the step, the same on all devices.

        Returns:
          `[B]` losses, and scalar metrics by name, or a `Mean` of those values that
          some devices or parts may not have.
        """
        ...

    def remember(
        self, memory: Mapping[str, Array], outputs: Array, batch: Batch
    ) -> Mapping[str, Array]:
        """Returns the memory of the loss after a batch, the same on all devices.

        Args:
          memory: Memory before the batch, which the batch of a call holds as `memory`.
          outputs: `[B, n, D]` float32, as in a call.
          batch: Arrays of the device's share of the batch.
        """
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """Everything a checkpoint needs to resume training.

    Attributes:
      step: int32 scalar, number of batches so far.
      skipped_in_a_row: int32 scalar, number of last batches in a row that gave a
        non-finite loss, embedding or gradient, and so were skipped.
      params: Trained variables.
      model_state: Other variables of the model, e.g. BatchNorm statistics.
      opt_state: State of the optimizer.
      memory: Embeddings of earlier batches or centers of classes, for a loss that
        compares with them; else without arrays.
      averaged: Moving average of `params`, with which images are embedded; without
        arrays if there is none, and `params` are used.
    """

    step: Array
    skipped_in_a_row: Array
    params: optax.Params
    model_state: nnx.State
    opt_state: optax.OptState
    memory: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    averaged: optax.Params = dataclasses.field(default_factory=dict)

    @property
    def evaluated(self) -> optax.Params:
        """Parameters with which images are embedded."""
        return self.averaged or self.params


def create_train_state(
    model: nnx.Module, tx: optax.GradientTransformation, *, averages: bool = False
) -> tuple[nnx.GraphDef, TrainState]:
    """Splits a model into its static structure and the state to be trained.

    Args:
      model: Network with its initial variables.
      tx: Optimizer.
      averages: True to keep a moving average of the parameters.
    """
    graphdef, params, model_state = nnx.split(model, nnx.Param, ...)
    state = TrainState(
        step=jnp.int32(0),
        skipped_in_a_row=jnp.int32(0),
        params=params,
        model_state=model_state,
        opt_state=jit_once(tx.init)(params),
        averaged=jax.tree.map(jnp.copy, params) if averages else {},
    )
    return graphdef, state


def network_arrays(state: TrainState) -> dict[str, Array]:
    """Returns the network's variables by path, e.g. `params/trunk/head/kernel/value`.

    They are named as a checkpoint names them; counters and optimizer are left out, and
    the parameters are those with which images are embedded.
    """
    parts = {"params": state.evaluated, "model_state": state.model_state}
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree.leaves_with_path(parts)
    }


def with_network_arrays(state: TrainState, arrays: Mapping[str, Array]) -> TrainState:
    """Returns a state with other variables, named as by `network_arrays`."""
    parts = {"params": state.params, "model_state": state.model_state}
    leaves = [arrays[name] for name in network_arrays(state)]
    parts = jax.tree.unflatten(jax.tree.structure(parts), leaves)
    averaged = jax.tree.map(jnp.copy, parts["params"]) if state.averaged else {}
    return dataclasses.replace(state, **parts, averaged=averaged)


def make_train_step(
    graphdef: nnx.GraphDef,
    tx: optax.GradientTransformation,
    objective: Objective,
    *,
    seed: int = 0,
    accumulate: int = 1,
    remat: bool = False,
    freeze_trunk: bool = False,
    ema_decay: float = 0.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns `train_step(state, batch)`, written for one device.

    Each device processes its share of the batch; gradients, metrics and BatchNorm
    statistics are then averaged over `DATA_AXIS`. A step with non-finite outputs or
    gradients changes only the counters.

    The batch holds uint8 `images [B, n, H, W, C]`, for ranking anchor, positive and
    negative, and the arrays that the objective needs. The metrics are float32 scalars,
    except `finite`, bool `[devices, B]`: True for groups with finite outputs, and
    each `Mean`, which may be of no value.

    Args:
      graphdef: Structure of the model, from `create_train_state`.
      tx: Optimizer.
      objective: Loss to minimise, with its metrics.
      seed: Seed of all random draws, with the step: a resumed run draws as one that
        never stopped.
      accumulate: Number of parts, one after the other, in which a device processes its
        share, each with its own BatchNorm statistics and mining among its own images;
        must divide `B`.
      remat: True keeps only the outputs of each block, and computes the rest again for
        the gradient: less memory, more time.
      freeze_trunk: True computes no gradient of the trunk.
      ema_decay: Decay of the moving average of the parameters, if the state has one.
    """
    forward = make_forward(graphdef, remat=remat)
    gradients = _make_gradients(forward, objective, freeze_trunk)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        grads, (model_state, memory), finite, metrics = _accumulate(
            gradients, state, batch, key, accumulate
        )
        metrics, model_state, grads = jax.lax.pmean(
            (metrics, model_state, grads), DATA_AXIS
        )
        metrics["grad_norm"] = optax.tree.norm(grads)
        metrics["finite"] = jax.lax.all_gather(finite, DATA_AXIS)

        ok = jnp.all(metrics["finite"]) & jnp.isfinite(metrics["grad_norm"])
        ok &= jnp.isfinite(metrics["loss"])
        new_state = _apply_gradients(
            tx, state, grads, (model_state, memory), ok, ema_decay
        )
        metrics["skipped_in_a_row"] = new_state.skipped_in_a_row
        return new_state, metrics

    return train_step


def _apply_gradients(
    tx: optax.GradientTransformation,
    state: TrainState,
    grads: optax.Updates,
    changed: Changed,
    ok: Array,
    ema_decay: float,
) -> TrainState:
    """Returns the state after a step, which changes only the counters unless `ok`."""
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    averaged = state.averaged
    if averaged:
        averaged = optax.incremental_update(params, averaged, 1.0 - ema_decay)
    updated = dataclasses.replace(
        state,
        skipped_in_a_row=jnp.int32(0),
        params=params,
        averaged=averaged,
        model_state=changed[0],
        opt_state=opt_state,
        memory=changed[1],
    )
    skipped = dataclasses.replace(state, skipped_in_a_row=state.skipped_in_a_row + 1)
    new_state = jax.tree.map(lambda new, old: jnp.where(ok, new, old), updated, skipped)
    return dataclasses.replace(new_state, step=state.step + 1)


def make_forward(graphdef: nnx.GraphDef, *, remat: bool = False) -> Forward:
    """Returns `forward(params, model_state, images, key)`, the network in training.

    It maps uint8 images `[B, n, H, W, C]` to outputs `[B, n, D]` and the new
    `model_state`. With `remat` only the outputs of each block of the network are kept
    for the gradient.
    """

    def forward(params, model_state, images, key):
        # copy=True: BatchNorm may only write to variables made in this trace.
        model = nnx.merge(graphdef, params, model_state, copy=True)
        # Folding [B, n, ...] into [B * n, ...] leaves every image on its device;
        # concatenating n [B, ...] arrays would move them.
        outputs = model(images.reshape(-1, *images.shape[2:]), key)
        _, _, model_state = nnx.split(model, nnx.Param, ...)
        return outputs.reshape(*images.shape[:2], -1), model_state

    if not remat:
        return forward
    keep = jax.checkpoint_policies.save_only_these_names(BLOCK_OUTPUT)
    return jax.checkpoint(forward, policy=keep)


def _make_gradients(
    forward: Forward, objective: Objective, freeze_trunk: bool
) -> Gradients:
    """Returns `gradients(params, changed, batch, step, key)` of one device."""

    def gradients(params, changed, batch, step, key):
        model_state, memory = changed
        # Dropout differs by device, the draws of the loss do not.
        device_key = jax.random.fold_in(
            jax.random.fold_in(key, _DROPOUT), jax.lax.axis_index(DATA_AXIS)
        )

        def mean_loss(params):
            if freeze_trunk:
                params = optimizers.stop_trunk_gradient(params)
            outputs, new_state = forward(
                params,
                model_state,
                batch["images"],
                # A frozen trunk has no dropout, nor then have the others.
                None if freeze_trunk else device_key,
            )
            inputs = {**batch, "memory": memory} if memory else batch
            group_losses, metrics = objective(outputs, inputs, step=step, key=key)
            new_memory = memory
            if memory:
                new_memory = objective.remember(memory, outputs, batch)
            # XLA may drop a NaN inside max(0, x), so the loss alone is no test.
            finite = jnp.all(jnp.isfinite(outputs), axis=(1, 2))
            return jnp.mean(group_losses), ((new_state, new_memory), finite, metrics)

        grad_fn = jax.value_and_grad(mean_loss, has_aux=True)
        (loss, (changed, finite, metrics)), grads = grad_fn(params)
        return grads, changed, finite, {"loss": loss, **metrics}

    return gradients


def _accumulate(
    gradients: Gradients,
    state: TrainState,
    batch: Batch,
    key: Array,
    num_parts: int,
) -> tuple[nnx.State, Changed, Array, Metrics]:
    """Returns the results of `gradients`, averaged over the parts of the batch."""
    changed = state.model_state, state.memory
    if num_parts == 1:
        return gradients(state.params, changed, batch, state.step, key)
    parts = jax.tree.map(lambda x: x.reshape(num_parts, -1, *x.shape[1:]), batch)

    def add(carry, part):
        total, changed = carry
        index, part_batch = part
        grads, changed, finite, metrics = gradients(
            state.params,
            changed,
            part_batch,
            state.step,
            jax.random.fold_in(key, index),
        )
        total = jax.tree.map(lambda t, g: t + g / num_parts, total, grads)
        return (total, changed), (finite, metrics)

    zeros = jax.tree.map(jnp.zeros_like, state.params)
    (grads, changed), (finite, metrics) = jax.lax.scan(
        add, (zeros, changed), (jnp.arange(num_parts), parts)
    )
    metrics = jax.tree.map(jnp.mean, metrics)
    return grads, changed, finite.reshape(-1), metrics


def make_embed_step(graphdef: nnx.GraphDef) -> Callable[[TrainState, Array], Array]:
    """Returns `embed_step(state, images)`, written for one device.

    It maps uint8 images `[B, H, W, C]` to float32 embeddings `[B, D]`, with BatchNorm
    at its running averages.
    """
    return _make_inference_step(graphdef, lambda model, images: model.embed(images))


def make_embed_once_step(
    graphdef: nnx.GraphDef,
) -> Callable[[TrainState, Array], Array]:
    """Returns `embed_once_step(state, images)`, of one view and not whitened.

    It maps the images to unit vectors, float32 `[B, D]`; see `make_embed_step`.
    """
    return _make_inference_step(
        graphdef, lambda model, images: model.embed_once(images)
    )


def make_logits_step(graphdef: nnx.GraphDef) -> Callable[[TrainState, Array], Array]:
    """Returns `logits_step(state, images)` of a classifier; see `make_embed_step`.

    It maps the images to logits, float32 `[B, num_classes]`.
    """
    return _make_inference_step(graphdef, lambda model, images: model(images))


def make_feature_step(graphdef: nnx.GraphDef) -> Callable[[TrainState, Array], Array]:
    """Returns `feature_step(state, images)`, the features of the trunk alone.

    It maps them to unit vectors, float32 `[B, num_features]`; see `make_embed_step`.
    """
    return _make_inference_step(
        graphdef, lambda model, images: l2_normalize(model.features(images))
    )


def _make_inference_step(
    graphdef: nnx.GraphDef, apply: Callable[[Any, Array], Array]
) -> Callable[[TrainState, Array], Array]:
    """Returns `step(state, images)`, which applies a function of the model to images.

    BatchNorm is at its running averages and dropout is off.

    Args:
      graphdef: Structure of the model.
      apply: Function of the model and the images.
    """

    def inference_step(state: TrainState, images: Array) -> Array:
        model = nnx.merge(graphdef, state.evaluated, state.model_state, copy=True)
        model.eval()
        return apply(model, images)

    return inference_step
