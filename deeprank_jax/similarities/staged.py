"""Training of a network of pairs in three stages, those of SimNet."""

import abc
from collections.abc import Callable, Iterator, Mapping
import dataclasses
import functools
from typing import ClassVar

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from deeprank_jax.errors import DataError
from deeprank_jax.progress import Bar
from deeprank_jax.similarities.base import (
    Metrics,
    check_embeddings,
    check_pairs,
    check_scores,
    unit_rows,
)
from deeprank_jax.similarities.pairs import LabelledPairs, draw_unit_pairs

Array = jax.Array
# Both sides of pairs and their targets.
Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]

LOSSES = {"l1": jnp.abs, "mse": jnp.square}
# Pairs that are scored at once, and random pairs that measure the first stage.
_BLOCK, _NUM_UNSEEN = 4096, 10_000


@dataclasses.dataclass(kw_only=True, eq=False)
class StagedSimilarity(abc.ABC):
    r"""A similarity whose network learns from pairs of unit vectors, in three stages.

    1. It regresses the cosine of random pairs, whose cosines are uniform in [-1, 1].
    2. It regresses :math:`\cos(a, b) + \Delta` for images of one class and
       :math:`\cos(a, b) - \Delta` for others.
    3. It does so, with a larger :math:`\Delta`, on the pairs whose scores after the
       second stage miss those of that stage by most.

    In the last two stages half of the pairs are of one class. The rate falls to 0 along
    a half cosine in each stage.

    References:
      Garcia and Vogiatzis, Learning Non-Metric Visual Similarity for Image Retrieval,
      2019, https://arxiv.org/abs/1709.01353; the optimizer, the fall of the rate, the
      numbers of steps and the share of hard pairs are ours.

    Attributes:
      random_steps: Number of steps of the first stage, at least 0, as the next two.
      pair_steps: Number of steps of the second stage.
      hard_steps: Number of steps of the third stage.
      pair_margin: Distance of the targets from the cosine in the second stage.
      hard_margin: Distance of the targets from the cosine in the third stage.
      hard_pool: Number of pairs among which the hardest are searched for.
      hard_share: Share of these pairs that the third stage trains on, in (0, 1].
      loss: Loss of a score and its target, `"l1"` or `"mse"`.
      batch_size: Number of pairs of a step.
      rate: Rate of the optimizer, Adam, at the beginning of a stage.
      weight_std: Standard deviation of the initial weights.
    """

    is_distance: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True

    random_steps: int = 5000
    pair_steps: int = 2000
    hard_steps: int = 1000
    pair_margin: float = 0.2
    hard_margin: float = 0.8
    hard_pool: int = 50_000
    hard_share: float = 0.1
    loss: str = "l1"
    batch_size: int = 100
    rate: float = 1e-3
    weight_std: float = 0.01

    def __post_init__(self):
        """Checks the options.

        Raises:
          ValueError: One is out of range; the message begins with its name.
        """
        self._dim = 0
        self._network: nnx.Module | None = None
        if self.loss not in LOSSES:
            raise ValueError(
                f"loss must be one of {', '.join(LOSSES)}, got {self.loss!r}."
            )
        for name in ("random_steps", "pair_steps", "hard_steps"):
            self._check_range(name, 0)
        for name in ("pair_margin", "hard_margin"):
            self._check_range(name, 0, np.inf)
        for name in ("hard_pool", "batch_size"):
            self._check_range(name, 2)
        for name, largest in (
            ("hard_share", 1.0), ("rate", np.inf), ("weight_std", np.inf),
        ):  # fmt: skip
            self._check_range(name, np.nextafter(0, 1), largest)

    def _check_range(self, name: str, smallest: float, largest: float = np.inf) -> None:
        value = getattr(self, name)
        if not (smallest <= value <= largest and np.isfinite(value)):
            bound = f"at least {smallest}" if smallest else "0 or more"
            bound = "above 0" if 0 < smallest < 1 else bound
            most = f" and at most {largest:g}" if np.isfinite(largest) else ""
            raise ValueError(f"{name} must be {bound}{most}, got {value}.")

    @abc.abstractmethod
    def create_network(self, dim: int, rngs: nnx.Rngs) -> nnx.Module:
        """Returns a network of two float32 `[N, D]` to scores `[N]`.

        Args:
          dim: Length of an embedding, `D`.
          rngs: Random keys of the parameters.
        """

    @abc.abstractmethod
    def describe(self) -> str:
        """Returns a short text for tables."""

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Returns the score of each pair, `[N]` float64; see `Similarity`."""
        a, b = check_pairs(a, b, self._trained_dim())
        return check_scores(self._score(unit_rows(a), unit_rows(b)))

    def stages(
        self, embeddings: np.ndarray, labels: np.ndarray, *, seed: int = 0
    ) -> Iterator[Metrics]:
        """Trains, and yields the metrics of each stage; see `LearnedSimilarity`.

        These are `random_error`, the mean absolute error of the cosines of unseen
        random pairs after the first stage, and `pair_loss` and `hard_loss`, the mean
        loss of the last tenth of the steps of the other two. Without steps the first
        stage has the error of the untrained network, and the others have no metric.
        """
        embeddings = check_embeddings("the training set", embeddings)
        pairs = LabelledPairs(labels, len(embeddings))
        if embeddings.shape[1] < 2:
            raise DataError(
                "Embeddings of one number have only two directions, and nothing is to "
                "be learned of them: give longer ones."
            )
        rows, self._dim = unit_rows(embeddings), embeddings.shape[1]
        self._network = self.create_network(self._dim, nnx.Rngs(seed))
        rngs = [np.random.default_rng([seed, stage]) for stage in range(4)]

        def draw_random(num: int) -> Pairs:
            return draw_unit_pairs(rngs[1], num, self._dim)

        def draw_labelled(num: int) -> Pairs:
            return _targets(rows, *pairs.draw(rngs[2], num), self.pair_margin)

        if self.random_steps:
            self._fit("random pairs", self.random_steps, draw_random)
        unseen = draw_unit_pairs(rngs[0], _NUM_UNSEEN, self._dim)
        errors = np.abs(self._score(*unseen[:2]) - unseen[2])
        yield {"random_error": float(errors.mean())}
        if self.pair_steps:
            yield {"pair_loss": self._fit("pairs", self.pair_steps, draw_labelled)}
        if self.hard_steps:
            hard = self._hardest(rows, pairs, rngs[3])
            draw = functools.partial(_draw_from, rngs[3], hard)
            yield {"hard_loss": self._fit("hard pairs", self.hard_steps, draw)}

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the parameters of the network by name."""
        self._trained_dim()
        state = nnx.to_flat_state(nnx.state(self._network))
        return {".".join(map(str, path)): np.asarray(x[...]) for path, x in state}

    def restore(self, arrays: Mapping[str, np.ndarray], dim: int) -> None:
        """Sets the parameters of the network; see `LearnedSimilarity`."""
        # Shapes alone, since a file of others may ask for any width.
        create = lambda: self.create_network(dim, nnx.Rngs(0))
        graphdef, state = nnx.split(nnx.eval_shape(create))
        variables = dict(nnx.to_flat_state(state))
        names = {".".join(map(str, path)): path for path in variables}
        if arrays.keys() != names.keys():
            raise ValueError(f"it holds {sorted(arrays)}, not {sorted(names)}")
        for name, path in names.items():
            shape = variables[path].shape
            if arrays[name].shape != shape or arrays[name].dtype != np.float32:
                raise ValueError(
                    f"{name} is {arrays[name].dtype} {list(arrays[name].shape)}, not "
                    f"float32 {list(shape)}"
                )
            value = jnp.array(arrays[name])
            variables[path] = variables[path].replace(value)
        self._network = nnx.merge(graphdef, nnx.from_flat_state(variables))
        self._dim = dim

    def _score(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Returns the network's scores `[N]` float32 of unit vectors."""
        graphdef, state = nnx.split(self._network)
        scores = np.empty(len(a), np.float32)
        for start in range(0, len(a), _BLOCK):
            part = slice(start, start + _BLOCK)
            num = len(scores[part])
            # Few shapes, each of which is compiled once.
            size = min(_BLOCK, 1 << (num - 1).bit_length())
            padded = (np.zeros((size, a.shape[1]), np.float32) for _ in range(2))
            sides = []
            for side, rows in zip(padded, (a, b), strict=True):
                side[:num] = rows[part]
                sides.append(side)
            scores[part] = np.asarray(_apply(graphdef, state, *sides))[:num]
        return scores

    def _fit(self, name: str, num_steps: int, draw: Callable[[int], Pairs]) -> float:
        """Trains the network on batches, and returns the mean loss at the end."""
        graphdef, state = nnx.split(self._network)
        schedule = optax.cosine_decay_schedule(self.rate, num_steps)
        tx = optax.adam(schedule)
        opt_state = tx.init(state)
        step = _make_step(graphdef, tx, LOSSES[self.loss])
        last, losses = max(1, num_steps // 10), []
        bar = Bar(total=num_steps, desc=f"{self.describe()}, {name}", unit=" step")
        with bar:
            for i in range(num_steps):
                state, opt_state, loss = step(state, opt_state, *draw(self.batch_size))
                if i >= num_steps - last:
                    losses.append(loss)
                if i % 100 == 99:
                    jax.block_until_ready(loss)
                bar.update()
        loss = float(np.mean(losses))
        if not np.isfinite(loss):
            raise DataError(
                f"The loss on {name} is not finite: train again at a lower rate than "
                f"{self.rate:g}."
            )
        self._network = nnx.merge(graphdef, state)
        return loss

    def _hardest(
        self, rows: np.ndarray, pairs: LabelledPairs, rng: np.random.Generator
    ) -> Pairs:
        """Returns the pairs that the network misses most, as many of each kind."""
        drawn_rows, is_similar = pairs.draw(rng, self.hard_pool)
        a, b, targets = _targets(rows, drawn_rows, is_similar, self.pair_margin)
        misses = np.abs(check_scores(self._score(a, b)) - targets)
        hardest = []
        for kind in (is_similar, ~is_similar):
            of_kind = np.flatnonzero(kind)
            num = max(1, round(self.hard_share * len(of_kind)))
            order = np.argsort(-misses[of_kind], kind="stable")
            hardest.append(of_kind[order[:num]])
        places = np.concatenate(hardest)
        return _targets(rows, drawn_rows[places], is_similar[places], self.hard_margin)

    def _trained_dim(self) -> int:
        """Returns D.

        Raises:
          DataError: The similarity is not trained yet.
        """
        if self._network is None:
            raise DataError(
                f"{self.describe()} has not been trained: train it, or load it from a "
                "file."
            )
        return self._dim


def _targets(
    rows: np.ndarray, pairs: np.ndarray, is_similar: np.ndarray, margin: float
) -> Pairs:
    """Returns both sides of pairs of rows, and the scores they should have."""
    a, b = rows[pairs[:, 0]], rows[pairs[:, 1]]
    targets = np.sum(a * b, axis=1) + np.where(is_similar, margin, -margin)
    return a.astype(np.float32), b.astype(np.float32), targets.astype(np.float32)


def _draw_from(rng: np.random.Generator, pairs: Pairs, num: int) -> Pairs:
    places = rng.integers(0, len(pairs[0]), num)
    a, b, targets = (x[places] for x in pairs)
    return a, b, targets


@jax.jit(static_argnums=0)
def _apply(graphdef: nnx.GraphDef, state: nnx.State, a: Array, b: Array) -> Array:
    return nnx.merge(graphdef, state)(a, b)


def _make_step(
    graphdef: nnx.GraphDef,
    tx: optax.GradientTransformation,
    loss_fn: Callable[[Array], Array],
) -> Callable[..., tuple[nnx.State, optax.OptState, Array]]:
    """Returns a compiled step of the optimizer."""

    @jax.jit(donate_argnums=(0, 1))
    def step(state, opt_state, a, b, targets):
        def mean_loss(state):
            scores = nnx.merge(graphdef, state)(a, b)
            return jnp.mean(loss_fn(scores - targets))

        loss, gradients = jax.value_and_grad(mean_loss)(state)
        updates, opt_state = tx.update(gradients, opt_state, state)
        return optax.apply_updates(state, updates), opt_state, loss

    return step
