"""Which triplet is drawn at which step: a function of `(seed, step)` and no more."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from deeprank_jax.relevance import Relevance
from deeprank_jax.sampling import counter_rng
from deeprank_jax.sampling.reservoir.buffers import Buffers, Runners
from deeprank_jax.sampling.reservoir.candidates import Candidates
from deeprank_jax.sampling.reservoir.draws import NoTripletError, TripletDraws
from deeprank_jax.sampling.reservoir.law import MODES, Law
from deeprank_jax.sampling.reservoir.table import DrawTable

# What a checkpoint says of the sampler; another number is another law of draws.
STATE_VERSION = 2
# The first draws wait for all records, or for this many of a larger set.
_LONGEST_WARMUP = 2**20
_INGEST_BLOCK = 2**13
# While the first pass goes on, the table that is drawn from is made anew when another
# eighth of the slots, or this share of what has passed, has passed.
_RENEW_SHARE = 64
# The least and the greatest value of an argument.
_RANGES = {
    "seed": (0, np.inf),
    "capacity": (2, np.inf),
    "warmup_records": (1, np.inf),
    "records_per_step": (1, np.inf),
    "positive_cap": (np.nextafter(0.0, 1.0), np.inf),
    "min_relevance_gap": (0, np.inf),
    "out_of_class": (0, 1),
    "num_shards": (1, np.inf),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Triplets:
    """The triplets of one step; anchor, positive and negative on axis 1.

    Attributes:
      step: at which they were drawn.
      indices: `[B, 3]` int64 records.
      attributes: `[B, 3, A]`, theirs.
      relevance: `[B, 2]` float64, of the anchor to its positive and to its negative;
        0 for an out-of-class negative.
      in_class: `[B]` bool, whether the negative is of the anchor's category.
      counts: how often what was wanted could not be drawn, by cause; see
        `TripletSampler`.
      gauges: what else there is to watch, e.g. how full the buffers are.
    """

    step: int
    indices: np.ndarray
    attributes: np.ndarray
    relevance: np.ndarray
    in_class: np.ndarray
    counts: dict[str, int]
    gauges: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def take(self, source: np.ndarray, num_bad: int) -> "Triplets":
        """Returns the triplets at `source`, `[B]`.

        Args:
          source: `[B]` int, which of these triplets.
          num_bad: how many of them stand in for one whose image could not be read.
        """
        return dataclasses.replace(
            self,
            indices=self.indices[source],
            attributes=self.attributes[source],
            relevance=self.relevance[source],
            in_class=self.in_class[source],
            counts={**self.counts, "bad_image": num_bad},
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns what the train step needs beside the images."""
        return {"attributes": self.attributes}

    def watched(self) -> dict[str, float]:
        """Returns what there is to watch, by the names that it is logged under."""
        inside = int(np.sum(self.in_class))
        return {
            "sampler_negatives/in_class": inside,
            "sampler_negatives/out_of_class": len(self.in_class) - inside,
            **{f"sampler_failures/{cause}": n for cause, n in self.counts.items()},
            **{
                f"buffers/{name.removeprefix('buffer_')}": value
                for name, value in self.gauges.items()
            },
        }


class TripletSampler:
    """Draws triplets from reservoir buffers, by relevance.

    Steps. Each pass shows all records in a new shuffled order; every category keeps
    a buffer of those that win a race at rates `r_j`, their total relevances. Step `t`
    draws when `warmup_records + t * records_per_step` records have passed: from the
    buffers of the last complete pass, or, during the first, from the buffers as they
    fill, brought up to date every few steps. All this is a function of `(seed,
    step)`: any step can be asked for at any time with the same result, ascending
    ones cheaply, one further back at the cost of reading up to two passes.

    Memory is that of the buffers, `capacity` for each category, and not of the
    records: an order is computed where it is needed, by a keyed permutation. Of
    several processes each sees its own shard of a pass, every `num_shards`-th place
    of its order, so that no record comes twice in a pass, and two records that are
    apart in one meet in another.

    Law. With `pi_j` the probability that record `j` is in its buffer, given the other
    records' keys, and `r_ij` the relevance of records of one category (0 across):

    1. anchor `i` from all buffers with weight `r_i / pi_i`;
    2. positive `j` from the buffer of the anchor's category, never the anchor itself,
       with weight `min(T_p, r_ij) / pi_j`;
    3. negative: with probability `out_of_class` from all other categories' buffers
       with weight `1 / pi_j`; else as the positive, restricted to those that are less
       relevant than the positive by at least `T_r`.

    While a category fits into its buffer `pi_j = 1`, and these are equations (6) to
    (8) of the paper; a smaller buffer estimates them. The paper's own online rule,
    uniform from the buffer, has another law; dividing by `pi_j` is this project's.

    The mode `"uniform"` is the paper's baseline: all weights above that are not 0 are
    1 over `pi_j`, and records race at equal rates. Positives are still relevant, and
    in-class negatives still less so by `T_r`.

    Corner cases, on which the paper is silent; the named ones are counted:

    - `no_in_class_negative`: no negative meets `T_r`; one is drawn out-of-class,
      so that anchors and positives keep their laws.
    - `no_other_category`: the buffers hold no other category; the negative is
      in-class.
    - `no_positive`, `no_negative`: the buffer holds no positive, or nothing of either
      class can be a negative. The anchor is drawn anew, up to 16 times.
    - `repeated`: still none; the next valid triplet of the batch takes its place.
    - If all in-class negatives that meet `T_r` have relevance 0, as other classes do
      when all records are one category, step 3 is uniform over them (`1 / pi_j`).
    - A negative as relevant as the positive orders nothing: also with `T_r = 0` it
      must be less relevant, if by any amount.
    - A record with total relevance 0 is neither anchor nor positive; to be a negative
      it races at the lowest rate of its category. `Candidates` counts them.

    References:
      Wang et al., Learning Fine-grained Image Similarity with Deep Ranking, 2014,
      https://arxiv.org/abs/1404.4661.
      Efraimidis and Spirakis, Weighted Random Sampling with a Reservoir, 2006,
      https://doi.org/10.1016/j.ipl.2005.11.003.
      Cohen and Kaplan, Summarizing Data Using Bottom-k Sketches, 2007,
      https://doi.org/10.1145/1281100.1281133.
    """

    def __init__(
        self,
        candidates: Candidates,
        relevance: Relevance,
        *,
        seed: int,
        mode: str = "importance",
        capacity: int = 1024,
        warmup_records: int | None = None,
        records_per_step: int = 256,
        positive_cap: float = 1.0,
        min_relevance_gap: float = 0.0,
        out_of_class: float = 0.2,
        shard: int = 0,
        num_shards: int = 1,
    ):
        """Creates the sampler; no record passes before the first step is asked for.

        Args:
          candidates: the records, of which only those in buffers are held.
          relevance: of two records by their attributes.
          seed: at least 0.
          mode: `"importance"` or `"uniform"`.
          capacity: how many records the buffer of a category holds, at least 2.
          warmup_records: how many records pass before step 0; None means all of
            them, or a million if there are more.
          records_per_step: how many records pass at each step, at least 1.
          positive_cap: `T_p`, above 0, on the scale of the relevance.
          min_relevance_gap: `T_r`, at least 0, on the scale of the relevance.
          out_of_class: share of negatives from other categories, in [0, 1].
          shard: which part of every pass is this process's, in `[0, num_shards)`.
          num_shards: how many processes draw. What passes before and at a step
            counts the records of all of them.

        Raises:
          NoTripletError: no record is relevant to any other.
          ValueError: an argument is out of its range.
        """
        size = len(candidates)
        if warmup_records is None:
            warmup_records = min(size, _LONGEST_WARMUP)
        _check_ranges(
            seed=seed,
            capacity=capacity,
            warmup_records=warmup_records,
            records_per_step=records_per_step,
            positive_cap=positive_cap,
            min_relevance_gap=min_relevance_gap,
            out_of_class=out_of_class,
            num_shards=num_shards,
        )
        if mode not in MODES:
            raise ValueError(f"mode must be one of {MODES}, got {mode!r}.")
        if not 0 <= shard < num_shards:
            raise ValueError(
                f"shard must be one of the {num_shards} (0 to {num_shards - 1}), got "
                f"{shard}."
            )
        if candidates.num_without_positive == size:
            raise NoTripletError(
                f"None of the {size:,} records is relevant to another of its category, "
                "so that there is no positive: give at least one class two images, or "
                "choose a coarser category_level."
            )
        self.seed, self.shard = seed, shard
        self._num_shards = num_shards
        self.candidates = candidates
        self._law = Law(
            relevance=relevance,
            mode=mode,
            positive_cap=positive_cap,
            min_relevance_gap=min_relevance_gap,
            out_of_class=out_of_class,
        )
        self._capacity = capacity
        self._warmup = warmup_records
        self._records_per_step = records_per_step
        self._slots = int(np.minimum(candidates.sizes, capacity + 1).sum())
        # Sorting and summing all slots is paid for by a share of as many records.
        self._block = num_shards * max(_INGEST_BLOCK, self._slots // 2)
        self._whole = bool(candidates.sizes.max() <= capacity) and num_shards == 1
        self._restart(0)
        self._table: DrawTable | None = None
        self._table_of = (-1, 0)

    def sample(self, step: int, batch_size: int) -> Triplets:
        """Draws the triplets of a step.

        Args:
          step: at least 0; in any order.
          batch_size: `B`, at least 1.

        Raises:
          NoTripletError: the buffers hold no triplet.
          ValueError: an argument is out of its range.
        """
        if step < 0 or batch_size < 1:
            raise ValueError(
                "step must be at least 0 and batch_size at least 1, got "
                f"{step} and {batch_size}."
            )
        table = self.seek(step)
        rng = counter_rng.step_rng(self.seed, counter_rng.DRAW, step, self.shard)
        draws, counts = self._draws.draw(batch_size, rng)
        return Triplets(
            step=step,
            indices=table.index[draws.slots],
            attributes=table.attributes[draws.slots],
            relevance=draws.relevance,
            in_class=draws.in_class,
            counts=dict(counts),
            gauges={
                "buffer_fill": table.fill,
                "buffer_age": self._age(step, table),
            },
        )

    def state(self, step: int) -> dict[str, Any]:
        """Returns all that another sampler needs to go on after `step` batches.

        Draws are a function of seed and step, so that this is all there is: it is the
        same whatever has been drawn ahead. `num_shards` may be another when a run
        goes on: what has passed stays the same, passes are dealt to the new number of
        processes, and still no record comes twice in one.
        """
        return {
            "version": STATE_VERSION,
            "seed": self.seed,
            "step": step,
            "num_records": len(self.candidates),
            "sum_of_totals": self.candidates.sum_of_totals,
            "num_shards": self._num_shards,
        }

    def seek(self, step: int) -> DrawTable:
        """Brings the buffers to where they stand at `step`; returns what they hold."""
        size = len(self.candidates)
        passed = self._warmup + step * self._records_per_step
        pass_index, offset = divmod(passed, size)
        if pass_index == 0:
            return self._table_at(0, self._renewed(passed))
        # A category that fits into its buffer is the same after every pass.
        table = self._table_at(0 if self._whole else pass_index - 1, size)
        if not self._whole:
            if self._filling != pass_index:
                self._restart(pass_index)
            if offset - self._filled >= self._block:
                self._ingest(offset)
        return table

    def _renewed(self, passed: int) -> int:
        """Returns how many records the table of the first pass has seen."""
        late = passed - self._warmup
        least = max(
            1, self._slots * self._num_shards // 8, self._warmup // _RENEW_SHARE
        )
        # Powers of two times the least, so that it never goes back.
        share = late // _RENEW_SHARE // least
        quantum = least << max(0, share.bit_length() - 1) if share else least
        return self._warmup + late // quantum * quantum

    def _age(self, step: int, table: DrawTable) -> float:
        """Returns how many steps ago a record in the buffers came by, on average."""
        size = len(self.candidates)
        passed = self._warmup + step * self._records_per_step
        seen = max(0, passed // size - 1) * size + table.mean_position
        return (passed - seen) / self._records_per_step

    def _table_at(self, pass_index: int, offset: int) -> DrawTable:
        """Returns what the buffers hold after `offset` records of a pass."""
        if self._table is None or self._table_of != (pass_index, offset):
            if self._filling != pass_index or self._filled > offset:
                self._restart(pass_index)
            self._ingest(offset)
            content = self._buffers.content()
            self._table = DrawTable(content, self.candidates, self._law)
            self._draws = TripletDraws(self._table)
            self._table_of = (pass_index, offset)
        return self._table

    def _restart(self, pass_index: int) -> None:
        self._buffers = Buffers(self.candidates.sizes, self._capacity)
        self._filling, self._filled = pass_index, 0

    def _ingest(self, offset: int) -> None:
        """Shows the buffers this shard's records of the pass up to `offset`."""
        candidates = self.candidates
        while self._filled < offset:
            end = min(self._filled + self._block, offset)
            # Shards are dealt anew every pass: every so many places of its order.
            first = self._filled + (self.shard - self._filled) % self._num_shards
            position = np.arange(first, end, self._num_shards)
            index = counter_rng.permute(
                self.seed, self._filling, position, len(candidates)
            )
            label = np.asarray(candidates.category[index])
            if self._law.mode == "uniform":
                rate = np.ones(len(index))
            else:
                rate = np.asarray(candidates.totals[index], np.float64)
                rate = np.where(rate > 0, rate, candidates.lowest[label])
            exponential = counter_rng.exponentials(self.seed, self._filling, index)
            self._buffers.ingest(
                Runners(
                    index=index,
                    label=label,
                    key=exponential / rate,
                    rate=rate,
                    position=position,
                )
            )
            self._filled = end


def create_whole_sampler(
    candidates: Candidates, relevance: Relevance, *, seed: int, **law: Any
) -> TripletSampler:
    """Creates a sampler whose buffers hold whole categories, from the first draw on.

    Args:
      candidates: the records.
      relevance: of two records by their attributes.
      seed: at least 0; the same seed draws the same triplets.
      **law: `mode`, `positive_cap`, `min_relevance_gap` and `out_of_class`, as of
        `TripletSampler`.

    Raises:
      ValueError: as `TripletSampler`.
    """
    size = len(candidates)
    return TripletSampler(
        candidates,
        relevance,
        seed=seed,
        capacity=max(2, size),
        warmup_records=size,
        **law,
    )


def sample_evaluation_triplets(
    candidates: Candidates, relevance: Relevance, num: int, *, seed: int, **law: Any
) -> np.ndarray:
    """Draws the triplets that a model is judged by, from whole categories.

    Args:
      candidates: as of `create_whole_sampler`.
      relevance: as of `create_whole_sampler`.
      num: how many triplets, at least 1; one may occur twice.
      seed: as of `create_whole_sampler`.
      **law: as of `create_whole_sampler`.

    Returns:
      `[num, 3]` int64 records: anchor, positive, negative.

    Raises:
      NoTripletError: no triplet was found.
      ValueError: as `TripletSampler`.
    """
    sampler = create_whole_sampler(candidates, relevance, seed=seed, **law)
    return sampler.sample(0, num).indices


def _check_ranges(**values: float) -> None:
    for name, value in values.items():
        low, high = _RANGES[name]
        if not low <= value <= high:
            raise ValueError(
                f"{name} must be {'above 0' if 0 < low < 1 else f'at least {low}'}"
                f"{'' if high == np.inf else f' and at most {high}'}, got {value}."
            )
