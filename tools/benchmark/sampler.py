"""Speed of the sampler, exactness of its law, and growth with the data.

Speeds are of one core, medians of several runs. Cases to compare take turns, as
machines change their speed while they run.
"""

import pathlib
import statistics
import tempfile
import time
import tracemalloc

import numpy as np
import tqdm

from deeprank_jax.relevance import Hierarchy, Relevance, WithinCategory
from deeprank_jax.relevance.embedding import Embedding
from deeprank_jax.sampling import Candidates, TripletSampler, count_candidates
from deeprank_jax.sampling.reservoir.group_sampler import GroupSampler
from deeprank_jax.sampling.stream import RankingSampler
from tools.benchmark import sampler_laws

_BATCH, _CAPACITY, _NUM_CATEGORIES, _GAP = 256, 1024, 4, 0.01
_HIERARCHY = Hierarchy((0.001, 0.02, 1.0))
_GROUP = 5  # An anchor, three positives and a negative.
_SMALL, _LARGE = 10**4, 10**7
_ROUNDS, _STEPS = 15, 200
_WARMUP, _PER_STEP = 5_000, 256


def measure() -> dict[str, float]:
    """Returns all numbers; under a minute on one core."""
    with tempfile.TemporaryDirectory() as scratch:
        small, large = (
            create_files(pathlib.Path(scratch) / str(size), size)
            for size in (_SMALL, _LARGE)
        )
        return {
            "ingest_records_per_s": ingest_speed(large),
            "hierarchy_triplets_per_s": draw_speed(create(large)),
            "hierarchy_grouped_images_per_s": _GROUP
            * draw_speed(
                GroupSampler(
                    create(large), positives_per_anchor=3, negatives_per_anchor=1
                )
            ),
            "embedding64_triplets_per_s": draw_speed(create_embedding()),
            "law_min_p_value": sampler_laws.min_p_value(),
            **sampler_laws.small_buffers(),
            **growth(small, large),
        }


def create_files(folder: pathlib.Path, size: int) -> Candidates:
    """Returns records whose labels and totals lie in memory-mapped files."""
    folder.mkdir()
    kinds = {"labels": (np.int32, (size, 3)), "category": (np.int32, (size,)),
             "totals": (np.float64, (size,))}  # fmt: skip
    files = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)
        for name, (dtype, shape) in kinds.items()
    }
    rng = np.random.default_rng(0)
    for start in range(0, size, 2**18):
        rows = slice(start, min(start + 2**18, size))
        fine = rng.integers(0, 512, rows.stop - start)
        files["labels"][rows] = np.stack([fine // 128, fine // 16, fine], axis=1)
        files["category"][rows] = fine // 128
        files["totals"][rows] = rng.lognormal(size=len(fine))
    for file in files.values():
        file.flush()
    read = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in files]
    return count_candidates(*read)


def create(
    candidates: Candidates,
    relevance: Relevance = _HIERARCHY,
    *,
    warmup_records: int | None = None,
    records_per_step: int = _PER_STEP,
) -> TripletSampler:
    """Returns a sampler with the buffers of the benchmark."""
    return TripletSampler(
        candidates,
        relevance,
        seed=0,
        capacity=_CAPACITY,
        min_relevance_gap=_GAP,
        warmup_records=warmup_records,
        records_per_step=records_per_step,
    )


def create_embedding() -> TripletSampler:
    """Returns a sampler by the distance of 64 values inside a category."""
    rng = np.random.default_rng(0)
    category = rng.integers(0, _NUM_CATEGORIES, 20_000).astype(np.float32)
    vectors = rng.normal(scale=0.125, size=(20_000, 64)).astype(np.float32)
    attributes = np.concatenate([category[:, None], vectors], axis=1)
    candidates = count_candidates(
        attributes, category.astype(np.int32), rng.lognormal(size=20_000)
    )
    return create(candidates, WithinCategory(Embedding("", scale=1.0), 0))


def ingest_speed(candidates: Candidates) -> float:
    """Returns the number of records ingested per second."""
    speeds = []
    for _ in range(3):
        sampler = create(candidates, warmup_records=len(candidates))
        start = time.perf_counter()
        sampler.seek(0)
        speeds.append(len(candidates) / (time.perf_counter() - start))
    return statistics.median(speeds)


def draw_speed(sampler: RankingSampler) -> float:
    """Returns the number of groups drawn per second, ingestion included."""
    sampler.sample(0, _BATCH)
    return statistics.median(_timed(sampler, 1 + _STEPS * i) for i in range(_ROUNDS))


def _timed(sampler: RankingSampler, first: int) -> float:
    start = time.perf_counter()
    for step in range(first, first + _STEPS):
        sampler.sample(step, _BATCH)
    return _BATCH * _STEPS / (time.perf_counter() - start)


def growth(small: Candidates, large: Candidates) -> dict[str, float]:
    """Returns memory and speed with 10^7 records over those with 10^4."""
    samplers, memory, ratios = [], [], []
    for candidates in (small, large):
        # The second epoch begins on the way, so that buffers and tables are rebuilt.
        first = (len(candidates) - _WARMUP) // _PER_STEP - _STEPS // 2
        tracemalloc.start()
        sampler = create(candidates, warmup_records=_WARMUP)
        for step in range(max(0, first), first + _STEPS):
            sampler.sample(step, _BATCH)
        memory.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        samplers.append((sampler, first + _STEPS))
    for i in tqdm.trange(4 * _ROUNDS, desc="growth", leave=False):
        one, other = (_timed(s, first + _STEPS * i) for s, first in samplers)
        ratios.append(other / one)
    return {
        "memory_ratio_1e7_over_1e4": memory[1] / memory[0],
        "speed_ratio_1e7_over_1e4": statistics.median(ratios),
    }
