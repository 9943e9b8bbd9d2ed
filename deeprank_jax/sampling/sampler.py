"""Which triplet is drawn at which step: a function of `(seed, step)` and no more."""

import dataclasses

import numpy as np

from deeprank_jax.relevance import Relevance
from deeprank_jax.sampling import counters
from deeprank_jax.sampling.buffers import Buffers, Categories
from deeprank_jax.sampling.draws import DrawTable, Law, NoTripletError, draw_triplets

# The first draws wait for all records, or for this many of a larger set.
_LONGEST_WARMUP = 2**20
_INGEST_BLOCK = 2**14
# The least and the greatest value of an argument.
_RANGES = {
    "seed": (0, np.inf),
    "capacity": (2, np.inf),
    "warmup_records": (1, np.inf),
    "records_per_step": (1, np.inf),
    "positive_cap": (np.nextafter(0.0, 1.0), np.inf),
    "min_relevance_gap": (0, np.inf),
    "out_of_class": (0, 1),
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
    """

    step: int
    indices: np.ndarray
    attributes: np.ndarray
    relevance: np.ndarray
    in_class: np.ndarray
    counts: dict[str, int]


class TripletSampler:
    """Draws triplets from reservoir buffers, by relevance.

    Steps. Each pass shows all records in a new shuffled order; every category keeps
    a buffer of those that win a race at rates `r_j`, their total relevances. Step `t`
    draws when `warmup_records + t * records_per_step` records have passed: from the
    buffers of the last complete pass, or, during the first, from the buffers as they
    fill, brought up to date every few steps. All this is a function of `(seed,
    step)`: any step can be asked for at any time with the same result, ascending
    ones cheaply, one further back at the cost of reading up to two passes.

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
      it races at the lowest rate of its category. `num_without_positive` counts them.

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
        attributes: np.ndarray,
        relevance: Relevance,
        *,
        seed: int,
        category_level: int | None = 0,
        capacity: int = 1024,
        warmup_records: int | None = None,
        records_per_step: int = 256,
        positive_cap: float = 1.0,
        min_relevance_gap: float = 0.0,
        out_of_class: float = 0.2,
    ):
        """Creates the sampler; no record is read before the first step is asked for.

        Args:
          attributes: `[N, A]` ints, a row per record; see `Records`.
          relevance: of two records by their attributes.
          seed: at least 0.
          category_level: which attribute is the category, a negative number counting
            from the finest; None puts all records into one.
          capacity: how many records the buffer of a category holds, at least 2.
          warmup_records: how many records pass before step 0; None means all of
            them, or a million if there are more.
          records_per_step: how many records pass at each step, at least 1.
          positive_cap: `T_p`, above 0, on the scale of the relevance.
          min_relevance_gap: `T_r`, at least 0, on the scale of the relevance.
          out_of_class: share of negatives from other categories, in [0, 1].

        Raises:
          NoTripletError: no record is relevant to any other.
          ValueError: an argument is out of its range, or a total relevance is
            negative or not finite.
        """
        size = len(attributes)
        if warmup_records is None:
            warmup_records = min(size, _LONGEST_WARMUP)
        _check_attributes(attributes, category_level)
        _check_ranges(
            seed=seed,
            capacity=capacity,
            warmup_records=warmup_records,
            records_per_step=records_per_step,
            positive_cap=positive_cap,
            min_relevance_gap=min_relevance_gap,
            out_of_class=out_of_class,
        )
        self.seed = seed
        self._attributes = attributes
        self._law = Law(
            relevance=relevance,
            positive_cap=positive_cap,
            min_relevance_gap=min_relevance_gap,
            out_of_class=out_of_class,
        )
        self._totals, self._categories = _categorise(
            attributes, relevance, category_level
        )
        self.num_without_positive = int(np.sum(self._totals == 0))
        if self.num_without_positive == size:
            raise NoTripletError(
                f"None of the {size:,} records is relevant to another of its category, "
                "so that there is no positive: give at least one class two images, or "
                "choose a coarser category_level."
            )
        self._capacity = capacity
        self._warmup = warmup_records
        self._records_per_step = records_per_step
        slots = int(np.minimum(self._categories.sizes, capacity + 1).sum())
        # Sorting and summing all slots is paid for by a share of as many records.
        self._block = max(_INGEST_BLOCK, slots // 2)
        self._refresh_steps = max(1, slots // (8 * records_per_step))
        self._whole = bool(self._categories.sizes.max() <= capacity)
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
        rng = counters.step_rng(self.seed, counters.DRAW, step)
        draws, counts = draw_triplets(table, self._law, batch_size, rng)
        indices = table.index[draws.slots]
        return Triplets(
            step=step,
            indices=indices,
            attributes=self._attributes[indices],
            relevance=draws.relevance,
            in_class=draws.in_class,
            counts=dict(counts),
        )

    def seek(self, step: int) -> DrawTable:
        """Brings the buffers to where they stand at `step`; returns what they hold."""
        size = len(self._attributes)
        pass_index, offset = divmod(self._warmup + step * self._records_per_step, size)
        if pass_index == 0:
            late = step % self._refresh_steps * self._records_per_step
            return self._table_at(0, offset - late)
        # A category that fits into its buffer is the same after every pass.
        table = self._table_at(0 if self._whole else pass_index - 1, size)
        if not self._whole:
            if self._filling != pass_index:
                self._restart(pass_index)
            if offset - self._filled >= self._block:
                self._ingest(offset)
        return table

    def _table_at(self, pass_index: int, offset: int) -> DrawTable:
        """Returns what the buffers hold after `offset` records of a pass."""
        if self._table is None or self._table_of != (pass_index, offset):
            if self._filling != pass_index or self._filled > offset:
                self._restart(pass_index)
            self._ingest(offset)
            self._table = DrawTable(
                *self._buffers.content(), self._totals, self._attributes
            )
            self._table_of = (pass_index, offset)
        return self._table

    def _restart(self, pass_index: int) -> None:
        self._buffers = Buffers(self._categories, self._capacity)
        self._filling, self._filled = pass_index, 0

    def _ingest(self, offset: int) -> None:
        """Shows the buffers the records of the pass up to `offset`."""
        size = len(self._attributes)
        while self._filled < offset:
            end = min(self._filled + self._block, offset)
            position = np.arange(self._filled, end)
            index = counters.permute(self.seed, self._filling, position, size)
            self._buffers.ingest(
                index, counters.exponentials(self.seed, self._filling, index)
            )
            self._filled = end


def sample_evaluation_triplets(
    attributes: np.ndarray,
    relevance: Relevance,
    num: int,
    *,
    seed: int,
    category_level: int | None = 0,
    positive_cap: float = 1.0,
    min_relevance_gap: float = 0.0,
    out_of_class: float = 0.2,
) -> np.ndarray:
    """Draws the triplets that a model is judged by, from whole categories.

    Args:
      attributes: `[N, A]` ints, a row per record.
      relevance: as of `TripletSampler`, and so on.
      num: how many triplets, at least 1; one may occur twice.
      seed: at least 0; the same seed draws the same triplets.
      category_level: as of `TripletSampler`.
      positive_cap: as of `TripletSampler`.
      min_relevance_gap: as of `TripletSampler`.
      out_of_class: as of `TripletSampler`.

    Returns:
      `[num, 3]` int64 records: anchor, positive, negative.

    Raises:
      NoTripletError: no triplet was found.
      ValueError: as `TripletSampler`.
    """
    sampler = TripletSampler(
        attributes,
        relevance,
        seed=seed,
        category_level=category_level,
        capacity=max(2, len(attributes)),
        warmup_records=max(1, len(attributes)),
        positive_cap=positive_cap,
        min_relevance_gap=min_relevance_gap,
        out_of_class=out_of_class,
    )
    return sampler.sample(0, num).indices


def _check_attributes(attributes: np.ndarray, category_level: int | None) -> None:
    if attributes.ndim != 2 or not attributes.size:
        raise ValueError(
            f"attributes must be [N, A] with at least one record and one attribute, "
            f"got shape {attributes.shape}."
        )
    num = attributes.shape[1]
    if category_level is not None and not -num <= category_level < num:
        raise ValueError(
            f"category_level must be None or one of the {num} levels "
            f"({-num} to {num - 1}), got {category_level}."
        )


def _check_ranges(**values: float) -> None:
    for name, value in values.items():
        low, high = _RANGES[name]
        if not low <= value <= high:
            raise ValueError(
                f"{name} must be {'above 0' if 0 < low < 1 else f'at least {low}'}"
                f"{'' if high == np.inf else f' and at most {high}'}, got {value}."
            )


def _categorise(
    attributes: np.ndarray, relevance: Relevance, level: int | None
) -> tuple[np.ndarray, Categories]:
    """Returns total relevances `[N]` inside each category, and the categories."""
    size = len(attributes)
    column = np.zeros(size, int) if level is None else attributes[:, level]
    _, label, sizes = np.unique(column, return_inverse=True, return_counts=True)
    totals = np.zeros(size)
    # Only records that share a category are relevant, whatever the relevance says.
    for members in np.split(np.argsort(label, kind="stable"), np.cumsum(sizes)[:-1]):
        totals[members] = relevance.total(attributes[members])
    wrong = np.flatnonzero(~(np.isfinite(totals) & (totals >= 0)))
    if len(wrong):
        raise ValueError(
            "A total relevance must be finite and at least 0, got "
            f"{totals[wrong[0]]} for record {wrong[0]}."
        )
    lowest = np.full(len(sizes), np.inf)
    np.minimum.at(lowest, label[totals > 0], totals[totals > 0])
    lowest[np.isinf(lowest)] = 1.0
    rate = np.where(totals > 0, totals, lowest[label])
    return totals, Categories(label=label, rate=rate, sizes=sizes)
