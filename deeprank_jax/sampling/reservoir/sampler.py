"""Sampler of triplets from reservoir buffers: a function of `(seed, step)`."""

import functools
import os

import numpy as np

from deeprank_jax.relevance import Relevance
from deeprank_jax.sampling import counter_rng
from deeprank_jax.sampling.epochs import check_step
from deeprank_jax.sampling.reservoir.buffers import Buffers, KeyedRecords
from deeprank_jax.sampling.reservoir.candidates import Candidates, Rows
from deeprank_jax.sampling.reservoir.draws import NoTripletError, TripletDraws
from deeprank_jax.sampling.reservoir.law import Law
from deeprank_jax.sampling.reservoir.options import check_options, check_process
from deeprank_jax.sampling.reservoir.positive_totals import positive_totals
from deeprank_jax.sampling.reservoir.table import DrawTable
from deeprank_jax.sampling.triplets import Triplets

# Version of the state in checkpoints, raised when the law of the draws changes. A run
# of an older one goes on by its law: up to version 4 it draws from all tables of few
# anchors, up to version 3 the order of few records is uneven, version 2 does not weigh
# anchors by the positives that are in the buffer.
STATE_VERSION, OLD_VERSIONS = 5, (2, 3, 4)
# The first draws wait for all records, or for this many of a larger set.
_LONGEST_WARMUP = 2**20
# Least number of records ingested at a time by a process; sorting and summing all
# slots pays off for half as many records.
_INGEST_BLOCK = 2**13
# During the first epoch the table for the draws is rebuilt after another eighth of
# the slots, or this share of the ingested records, has been ingested.
_RENEW_SHARE = 64
# Number of effective anchors from which on the normalization of a table is as good as
# that of all records: a share of the draws is then off by .002 at most.
_MANY_ANCHORS = 256
# Number of records whose weights are summed at a time.
_SUM_BLOCK = 2**20


class TripletSampler:
    """Draws triplets from reservoir buffers, by relevance.

    Steps. Each epoch ingests all records in a new shuffled order; every category keeps
    a buffer of the records that win a race at rates `r_j`, their total relevances.
    Step `t` draws when `warmup_records + t * records_per_step` records are ingested:
    from the buffers of the last complete epoch or, during the first, from the buffers
    as they fill, updated every few steps. All this is a function of `(seed, step)`:
    any step can be sampled at any time with the same result, ascending steps cheaply,
    an earlier one at the cost of ingesting up to two epochs, or some more with few
    anchors.

    Few anchors. Each table is normalized by its own sum of weights, which of few
    anchors is far from its mean, so that pairs would come too often in tables of low
    weight. With fewer than 256 effective anchors a table is therefore drawn from with a
    probability in proportion to its weight; otherwise the one before stays in use for
    another epoch.

    Memory is that of the buffers, `capacity` for each category, and not of the
    records: a keyed permutation computes the order where it is needed. Each of
    several processes ingests its own shard of an epoch, every `num_shards`-th place
    of its order, so that no record comes twice in an epoch, and two records that are
    apart in one meet in another.

    Law. With `pi_j` the probability that record `j` is in its buffer, given the other
    records' keys, and `r_ij` the relevance of records of one category (0 across):

    1. anchor `i` from all buffers with weight `r_i / pi_i * P_i / Z_i`, where `P_i` is
       the sum of the weights of step 2, and `Z_i` that of `min(T_p, r_ij)` over the
       whole category: so every pair has its law, also where few strong positives are
       in no buffer or in another process's;
    2. positive `j` from the buffer of the anchor's category, never the anchor itself,
       with weight `min(T_p, r_ij) / pi_j`;
    3. negative: with probability `out_of_class` from all other categories' buffers
       with weight `1 / pi_j`; else as the positive, restricted to records that are
       less relevant than the positive by at least `T_r`.

    While a category fits into its buffer `pi_j = 1` and `P_i = Z_i`, and these are
    equations (6) to (8) of the paper; a smaller buffer estimates them. The paper's own
    online rule, uniform from the buffer, has another law; dividing by `pi_j`, and the
    weight of the pair, are this project's.

    The mode `"uniform"` is the paper's baseline: all weights above that are not 0 are
    1 over `pi_j`, and records race at equal rates. Positives are still relevant, and
    in-class negatives still less so by `T_r`.

    Corner cases, on which the paper is silent; the named ones are counted:

    - `no_in_class_negative`: no negative meets `T_r`; one is drawn out-of-class,
      so that anchors and positives keep their laws.
    - `no_other_category`: the buffers hold no other category; the negative is
      in-class.
    - `no_negative`: no record of either class can be a negative. The anchor is drawn
      anew, up to 16 times.
    - `no_positive`: the buffer holds no positive. Such an anchor has weight 0; in runs
      that began with version 2 it is drawn anew.
    - `repeated`: still none; the next valid triplet of the batch takes its place.
    - If all in-class negatives that meet `T_r` have relevance 0, as other classes do
      when all records are one category, step 3 is uniform over them (`1 / pi_j`).
    - A negative as relevant as the positive orders nothing: also with `T_r = 0` it
      must be less relevant, if by any amount.
    - A record with total relevance 0 is neither anchor nor positive; to be a negative
      it races at the lowest rate of its category. `Candidates` counts them.

    Attributes:
      seed: Seed of all draws.
      shard: Index of this process.
      candidates: Records that are drawn from.
      out_of_class: Configured share of negatives of other categories.
      draws: Draws from the table of the last step that was sought.
      has_fixed_steps: Always False; see `Sampler`.
      version: Version of the law of the draws.

    References:
      Wang et al., Learning Fine-grained Image Similarity with Deep Ranking, 2014,
      https://arxiv.org/abs/1404.4661.
      Efraimidis and Spirakis, Weighted Random Sampling with a Reservoir, 2006,
      https://doi.org/10.1016/j.ipl.2005.11.003.
      Cohen and Kaplan, Summarizing Data Using Bottom-k Sketches, 2007,
      https://doi.org/10.1145/1281100.1281133.
    """

    has_fixed_steps = False
    version = STATE_VERSION
    _table: DrawTable | None = None
    # Epoch and number of its records that the table is of; the last epoch whose table
    # was tried, if it is the table of a whole epoch.
    _table_key: tuple[int, int] = (-1, 0)
    _settled: int | None = None

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
        min_positive_relevance: float = 0.0,
        shard: int = 0,
        num_shards: int = 1,
        cache: str | os.PathLike[str] | None = None,
    ):
        """Creates the sampler, which ingests nothing before its first step.

        Args:
          candidates: Records to draw from, of which the buffers hold some.
          relevance: Relevance of two records by their attributes.
          seed: Seed of all draws, at least 0.
          mode: Mode of the draws, `"importance"` or `"uniform"`.
          capacity: Number of records in the buffer of a category, at least 2.
          warmup_records: Number of records ingested before step 0; None for a million.
          records_per_step: Number of records ingested per step, at least 1.
          positive_cap: Cap `T_p`, above 0, on the scale of the relevance.
          min_relevance_gap: Gap `T_r`, at least 0, on that scale.
          out_of_class: Share of negatives from other categories, in [0, 1].
          min_positive_relevance: Least relevance of a positive, at least 0.
          shard: Index of this process, in `[0, num_shards)`.
          num_shards: Number of processes that draw; records are counted over all.
          cache: Folder that keeps expensive sums of relevance; None keeps none.

        Raises:
          NoTripletError: No record is relevant to any other.
          ValueError: An argument is out of its range.
        """
        self._law = Law(
            relevance=relevance,
            mode=mode,
            positive_cap=positive_cap,
            min_relevance_gap=min_relevance_gap,
            out_of_class=out_of_class,
            min_positive_relevance=min_positive_relevance,
        )
        self._capacity, self._records_per_step = capacity, records_per_step
        numbers = dict(capacity=capacity, records_per_step=records_per_step)
        check_options(warmup_records=warmup_records, **numbers, **self._law.options())
        check_process(seed, shard, num_shards)
        _check_positives(candidates)
        self.seed, self.shard, self._num_shards = seed, shard, num_shards
        self.candidates, self.out_of_class = candidates, out_of_class
        self._warmup = warmup_records or min(len(candidates), _LONGEST_WARMUP)
        self._slots = int(np.minimum(candidates.sizes, capacity + 1).sum())
        self._block = num_shards * max(_INGEST_BLOCK, self._slots // 2)
        self._positive_totals = self._sum_positives(cache)
        self._restart(0)

    def sample(self, step: int, batch_size: int) -> Triplets:
        """Draws the triplets of a step.

        Args:
          step: Step, at least 0; in any order.
          batch_size: Batch size `B`, at least 1.

        Raises:
          NoTripletError: The buffers hold no triplet.
          ValueError: An argument is out of its range.
        """
        check_step(step, batch_size)
        table = self.seek(step)
        rng = counter_rng.step_rng(self.seed, counter_rng.DRAW, step, self.shard)
        draws, counts = self.draws.draw(batch_size, rng)
        return Triplets(
            step=step,
            indices=table.index[draws.slots],
            attributes=table.attributes[draws.slots],
            relevance=draws.relevance,
            in_class=draws.in_class,
            counts=dict(counts),
            gauges=self.gauges(step, table),
        )

    def gauges(self, step: int, table: DrawTable) -> dict[str, float]:
        """Returns metrics of the buffers at a step.

        Args:
          step: Step, at least 0.
          table: Table that the step draws from, from `seek`.
        """
        return {
            "buffer_fill": table.fill,
            "buffer_age": self._age(step, table),
            "buffer_anchors": table.num_effective_anchors(),
        }

    def state(self, step: int) -> dict[str, object]:
        """Returns all that another sampler needs to continue after `step` batches.

        Draws are a function of seed and step, so the state is the same however many
        batches were drawn ahead. `num_shards` may change when a run is resumed: the
        ingested records stay the same, epochs are divided among the new number of
        processes, and still no record comes twice in one.
        """
        return {
            "version": self.version,
            "seed": self.seed,
            "step": step,
            "num_records": len(self.candidates),
            "sum_of_totals": self.candidates.sum_of_totals,
            "num_shards": self._num_shards,
        }

    def continue_as(self, version: int | None) -> None:
        """Draws by the law of an older version from here on, as a run began with it."""
        if version in OLD_VERSIONS:
            self.version, self._table, self._settled = version, None, None
        if version == 2:
            self._positive_totals = None

    def seek(self, step: int) -> DrawTable:
        """Ingests records up to a step and returns the table that it draws from."""
        epoch, offset = divmod(self._num_ingested(step), len(self.candidates))
        if epoch == 0:
            return self._table_at(self._renewed(offset))
        # A category that fits into its buffer is the same after every epoch.
        table = self._settle(0 if self._is_whole() else epoch - 1)
        if not self._is_whole():
            if self._filling != epoch:
                self._restart(epoch)
            if offset - self._filled >= self._block:
                self._ingest(offset)
        return table

    def _is_whole(self) -> bool:
        """Returns whether every category fits into its buffer."""
        fits = bool(self.candidates.sizes.max() <= self._capacity)
        return fits and self._num_shards == 1

    def _sum_positives(self, cache: str | os.PathLike[str] | None) -> Rows | None:
        """Returns the sums that weigh pairs; None if all draws see whole categories."""
        if self._is_whole() and self._warmup >= len(self.candidates):
            return None
        return positive_totals(self.candidates, self._law, cache)

    @functools.cached_property
    def _expected_weight(self) -> float:
        """The expected sum of the anchors' weights in a table; 0 if unknown."""
        if self._positive_totals is None:
            return 0.0
        size, expected = len(self.candidates), 0.0
        for first in range(0, size, _SUM_BLOCK):
            block = slice(first, first + _SUM_BLOCK)
            totals = np.asarray(self.candidates.totals[block], np.float64)
            has_positive = np.asarray(self._positive_totals[block]) > 0
            expected += float(self._law.anchor_weight(totals)[has_positive].sum())
        # Both records of a pair are in the shard.
        share = len(range(self.shard, size, self._num_shards))
        return expected * share * (share - 1) / max(1, size * (size - 1))

    def _num_ingested(self, step: int) -> int:
        """Returns the number of records that all shards have ingested at a step."""
        return self._warmup + step * self._records_per_step

    def _renewed(self, num_ingested: int) -> int:
        """Returns the number of ingested records in the table of the first epoch."""
        late = num_ingested - self._warmup
        least = max(
            1, self._slots * self._num_shards // 8, self._warmup // _RENEW_SHARE
        )
        # Powers of two times the least, so that it never goes back.
        share = late // _RENEW_SHARE // least
        quantum = least << max(0, share.bit_length() - 1) if share else least
        return self._warmup + late // quantum * quantum

    def _age(self, step: int, table: DrawTable) -> float:
        """Returns the mean number of steps since the table's records were ingested."""
        position = self._table_key[0] * len(self.candidates) + table.mean_position
        if self._is_whole():  # The table is the same after every epoch.
            last = max(0, self._num_ingested(step) // len(self.candidates) - 1)
            position += last * len(self.candidates)
        return (self._num_ingested(step) - position) / self._records_per_step

    def _table_at(self, offset: int) -> DrawTable:
        """Returns the table after `offset` records of the first epoch."""
        if self._table is None or self._table_key != (0, offset):
            self._use(0, offset, *self._create_table(0, offset))
            self._settled = 0 if offset == len(self.candidates) else None
        assert self._table is not None
        return self._table

    def _settle(self, epoch: int) -> DrawTable:
        """Returns the last table, of an epoch up to `epoch`, that is drawn from."""
        size = len(self.candidates)
        for last in range(epoch, -1, -1):
            # The table in use is the last one up to the epoch that was tried.
            if last == self._settled:
                break
            table, draws = self._create_table(last, size)
            if last == 0 or self._is_drawn_from(last, table):
                self._use(last, size, table, draws)
                break
        self._settled = epoch
        assert self._table is not None
        return self._table

    def _is_drawn_from(self, epoch: int, table: DrawTable) -> bool:
        """Returns whether a table of few anchors is used, by chance."""
        num_anchors = table.num_effective_anchors()
        if self.version != STATE_VERSION or num_anchors >= _MANY_ANCHORS:
            return True
        if not self._expected_weight:
            return True
        if not num_anchors:
            return False
        # Six standard deviations above the expected weight: hardly a table has more.
        most = self._expected_weight * (1 + 6 / np.sqrt(num_anchors))
        rng = counter_rng.step_rng(self.seed, counter_rng.TABLE, epoch, self.shard)
        return bool(rng.random() * most < table.anchor_sums[-1])

    def _create_table(self, epoch: int, offset: int) -> tuple[DrawTable, TripletDraws]:
        """Ingests records of an epoch, and returns a table with its draws."""
        if self._filling != epoch or self._filled > offset:
            self._restart(epoch)
        self._ingest(offset)
        table = DrawTable(self._buffers.content(), self.candidates, self._law)
        return table, TripletDraws(table, self._positive_totals)

    def _use(
        self, epoch: int, offset: int, table: DrawTable, draws: TripletDraws
    ) -> None:
        self._table, self.draws, self._table_key = table, draws, (epoch, offset)

    def _restart(self, epoch: int) -> None:
        self._buffers = Buffers(self.candidates.sizes, self._capacity)
        self._filling, self._filled = epoch, 0

    def _ingest(self, offset: int) -> None:
        """Ingests this shard's records of the epoch up to `offset`."""
        candidates = self.candidates
        while self._filled < offset:
            end = min(self._filled + self._block, offset)
            # Every num_shards-th place of the epoch's order is this shard's.
            first = self._filled + (self.shard - self._filled) % self._num_shards
            position = np.arange(first, end, self._num_shards)
            index = counter_rng.permute(
                self.seed,
                self._filling,
                position,
                len(candidates),
                num_rounds=None if self.version >= 4 else counter_rng.ROUNDS,
            )
            label = np.asarray(candidates.category[index])
            if self._law.mode == "uniform":
                rate = np.ones(len(index))
            else:
                rate = np.asarray(candidates.totals[index], np.float64)
                rate = np.where(rate > 0, rate, candidates.lowest[label])
            exponential = counter_rng.exponentials(self.seed, self._filling, index)
            self._buffers.ingest(
                KeyedRecords(
                    index=index,
                    label=label,
                    key=exponential / rate,
                    rate=rate,
                    position=position,
                )
            )
            self._filled = end


def _check_positives(candidates: Candidates) -> None:
    if candidates.num_without_positive == len(candidates):
        raise NoTripletError(
            f"None of the {len(candidates):,} records is relevant to another of its "
            "category, so that there is no positive: give at least one class two "
            "images, or choose a coarser category_level."
        )
