"""The compiled train step: one pure function from state to state."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import optax

from deeprank_jax.losses import LossFn, diagnostics
from deeprank_jax.losses.triplet import squared_distance
from deeprank_jax.parallel import DATA_AXIS

Array = jax.Array
Batch = Mapping[str, Array]
Metrics = dict[str, Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """Everything a checkpoint needs to resume training.

    Attributes:
      step: int32 scalar, the number of batches seen.
      skipped_in_a_row: int32 scalar, how many of the last batches gave a loss,
        embedding or gradient that is not finite, and so were not learned from.
      params: the trained variables.
      model_state: every other variable of the model, e.g. BatchNorm statistics.
      opt_state: the optimizer's state.
    """

    step: Array
    skipped_in_a_row: Array
    params: Any
    model_state: Any
    opt_state: Any


def create_train_state(
    model: nnx.Module, tx: optax.GradientTransformation
) -> tuple[nnx.GraphDef, TrainState]:
    """Splits a model into its static structure and the state to be trained."""
    graphdef, params, model_state = nnx.split(model, nnx.Param, ...)
    state = TrainState(
        step=jnp.int32(0),
        skipped_in_a_row=jnp.int32(0),
        params=params,
        model_state=model_state,
        opt_state=tx.init(params),
    )
    return graphdef, state


def make_train_step(
    graphdef: nnx.GraphDef,
    tx: optax.GradientTransformation,
    loss_fn: LossFn,
    seed: int = 0,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns `train_step(state, batch)`, written for one device.

    The step is what one device does with its share of the batch; gradients, metrics
    and BatchNorm statistics are then averaged over `DATA_AXIS`. A step whose
    embeddings or gradient are not finite changes nothing but the counters.

    The batch holds uint8 `images [B, 3, H, W, C]`, anchor, positive and negative, and
    int32 `attributes [B, 3, A]`. Of the metrics all are float32 scalars but
    `finite`, bool `[devices, B]`: whether a triplet's embeddings are.

    Args:
      graphdef: the model's structure, from `create_train_state`.
      tx: the optimizer.
      loss_fn: maps embeddings `[B, 3, D]` and attributes `[B, 3, A]` to `[B]`.
      seed: of what the loss draws at random, with the step.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        triplets = batch["images"]

        def objective(params):
            # copy=True: BatchNorm may only write to variables made in this trace.
            model = nnx.merge(graphdef, params, state.model_state, copy=True)
            # Folding [B, 3, ...] into [3B, ...] leaves every image on its device;
            # concatenating three [B, ...] arrays would move them.
            embeddings = model(triplets.reshape(-1, *triplets.shape[2:]))
            embeddings = embeddings.reshape(*triplets.shape[:2], -1)
            _, _, model_state = nnx.split(model, nnx.Param, ...)
            # A run that is resumed draws as one that never stopped.
            key = jax.random.fold_in(jax.random.key(seed), state.step)
            losses = loss_fn(embeddings, batch["attributes"], step=state.step, key=key)
            return jnp.mean(losses), (losses, embeddings, model_state)

        grad_fn = jax.value_and_grad(objective, has_aux=True)
        (loss, (losses, embeddings, model_state)), grads = grad_fn(state.params)
        metrics = {"loss": loss, **_metrics(losses, embeddings)}
        metrics, model_state, grads = jax.lax.pmean(
            (metrics, model_state, grads), DATA_AXIS
        )
        metrics["grad_norm"] = optax.tree.norm(grads)
        # XLA may drop a NaN inside max(0, x), so the loss alone would not tell.
        finite = jnp.all(jnp.isfinite(embeddings), axis=(1, 2))
        metrics["finite"] = jax.lax.all_gather(finite, DATA_AXIS)

        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        learned = dataclasses.replace(
            state,
            skipped_in_a_row=jnp.int32(0),
            params=optax.apply_updates(state.params, updates),
            model_state=model_state,
            opt_state=opt_state,
        )
        skipped = dataclasses.replace(
            state, skipped_in_a_row=state.skipped_in_a_row + 1
        )
        ok = jnp.all(metrics["finite"]) & jnp.isfinite(metrics["grad_norm"])
        ok &= jnp.isfinite(metrics["loss"])
        new_state = jax.tree.map(
            lambda new, old: jnp.where(ok, new, old), learned, skipped
        )
        new_state = dataclasses.replace(new_state, step=state.step + 1)
        metrics["skipped_in_a_row"] = new_state.skipped_in_a_row
        return new_state, metrics

    return train_step


def make_embed_step(
    graphdef: nnx.GraphDef,
) -> Callable[[TrainState, Array], Array]:
    """Returns `embed_step(state, images)`, written for one device.

    It maps uint8 images `[B, H, W, C]` to float32 embeddings `[B, D]`, with BatchNorm
    at its running averages.
    """

    def embed_step(state: TrainState, images: Array) -> Array:
        model = nnx.merge(graphdef, state.params, state.model_state, copy=True)
        model.eval()
        return model(images)

    return embed_step


def _metrics(losses: Array, embeddings: Array) -> Metrics:
    """Returns what one device's share of the batch says about training."""
    anchor, positive, negative = jnp.moveaxis(jax.lax.stop_gradient(embeddings), 1, 0)
    images = embeddings.reshape(-1, embeddings.shape[-1])
    return {
        "active_share": jnp.mean((losses > 0).astype(jnp.float32)),
        "positive_distance": jnp.mean(squared_distance(anchor, positive)),
        "negative_distance": jnp.mean(squared_distance(anchor, negative)),
        "mean_distance": diagnostics.mean_squared_distance(images),
        "effective_rank": diagnostics.effective_rank(images),
    }
