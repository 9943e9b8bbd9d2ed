"""Several processes draw from one dataset, and a run goes on with another number."""

from helpers.samplers import create_sampler
import numpy as np
import pytest

from deeprank_jax import relevance
from deeprank_jax.sampling import TripletSampler, count_candidates, counter_rng

SIZE, PER_STEP = 601, 60
HIERARCHY = relevance.Hierarchy((0.1, 0.4, 1.0))
# Classes of many sizes, so that totals differ.
_SHARES = 1.25 ** np.arange(24)
LABEL = np.random.default_rng(0).choice(24, SIZE, p=_SHARES / _SHARES.sum())
ATTRIBUTES = np.stack([LABEL // 6, LABEL // 3, LABEL], axis=1).astype(np.int32)


def create_shards(num, capacity=1000, **options):
    """One sampler for each process; every buffer could hold its whole category."""
    return [
        create_sampler(
            ATTRIBUTES,
            HIERARCHY,
            seed=5,
            capacity=capacity,
            records_per_step=PER_STEP,
            shard=shard,
            num_shards=num,
            **options,
        )
        for shard in range(num)
    ]


def with_all_tables(samplers):
    """Returns the samplers, which draw from tables of few anchors, too."""
    for sampler in samplers:
        sampler.continue_as(4)
    return samplers


def held(samplers, step):
    return [set(sampler.seek(step).index.tolist()) for sampler in samplers]


@pytest.mark.parametrize("num", [1, 2, 4])
@pytest.mark.parametrize("step", [0, 5, 12, 40])
def test_shards_are_disjoint_and_complete(num, step):
    samplers = with_all_tables(create_shards(num))
    parts = held(samplers, step)
    assert sum(map(len, parts)) == SIZE
    assert set.union(*parts) == set(range(SIZE))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("num", [2, 4])
def test_no_record_passes_twice_while_a_pass_is_under_way(num):
    samplers = create_shards(num, warmup_records=50)
    for step in range(9):
        parts = held(samplers, step)
        passed = sum(map(len, parts))
        assert len(set.union(*parts)) == passed <= 50 + step * PER_STEP
    assert passed > 300


def test_shards_are_dealt_anew_every_pass():
    """So that positives cross hosts: any two records meet in time."""
    samplers = with_all_tables(create_shards(2))
    steps = np.arange(40) * 11  # More than a pass apart.
    shard_of = np.zeros((len(steps), SIZE), int)
    for row, step in enumerate(steps):
        shard_of[row, list(held(samplers, int(step))[1])] = 1
    together = [np.mean(shard_of[:, 0] == shard_of[:, j]) for j in range(1, SIZE)]
    assert 0.15 < min(together)
    assert max(together) < 0.85
    assert np.mean(together) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("num", [1, 2, 4])
def test_every_shard_draws_at_every_step(num):
    """The same number of batches, from its own records, and no two alike."""
    samplers = create_shards(num, capacity=40)
    for step in range(0, 60, 7):
        batches = [sampler.sample(step, 16) for sampler in samplers]
        for sampler, batch in zip(samplers, batches, strict=True):
            assert batch.indices.shape == (16, 3)
            assert np.isin(batch.indices, sampler.seek(step).index).all()
        drawn = {batch.indices.tobytes() for batch in batches}
        assert len(drawn) == num


def test_shards_draw_and_augment_by_numbers_of_their_own(monkeypatch):
    asked = []
    step_rng = counter_rng.step_rng
    monkeypatch.setattr(
        counter_rng, "step_rng", lambda *args: asked.append(args) or step_rng(*args)
    )
    for sampler in create_shards(2):
        sampler.sample(3, 4)
    assert asked == [(5, counter_rng.DRAW, 3, 0), (5, counter_rng.DRAW, 3, 1)]
    numbers = [step_rng(5, counter_rng.DRAW, 3, shard).random() for shard in (0, 1)]
    assert numbers[0] != numbers[1]


@pytest.mark.parametrize("num", [2, 4])
def test_going_to_a_step_equals_having_run_from_0(num):
    """Also in the first pass, whose blocks end wherever a step ends."""
    options = {"warmup_records": 50, "capacity": 40}
    running = create_shards(num, **options)
    for step in range(14):
        fresh = create_shards(num, **options)
        for sampler, other in zip(running, fresh, strict=True):
            np.testing.assert_array_equal(
                sampler.sample(step, 8).indices, other.sample(step, 8).indices
            )


@pytest.mark.slow
def test_laws_hold_over_all_shards_together():
    """Every record is an anchor as often as its total relevance says."""
    samplers = create_shards(4)
    counts = np.zeros(SIZE)
    for step in range(0, 4400, 11):
        for sampler in samplers:
            drawn = sampler.sample(step, 25).indices[:, 0]
            counts += np.bincount(drawn, minlength=SIZE)
    totals = np.asarray(samplers[0].candidates.totals)
    law, share = totals / totals.sum(), counts / counts.sum()
    distance = 0.5 * np.abs(share - law).sum()
    # What as many draws from the law itself are away from it, on average.
    noise = 0.5 * np.sqrt(2 / np.pi * law * (1 - law) / counts.sum()).sum()
    assert distance < 1.5 * noise
    assert 0.5 * np.abs(1 / SIZE - law).sum() > 2 * noise  # It is not uniform.


def test_a_run_goes_on_with_another_number_of_processes():
    """What has passed stays the same; every pass is still dealt without repeats."""
    two, four = with_all_tables(create_shards(2)), with_all_tables(create_shards(4))
    step = 25  # In the third pass: tables are of the second.
    for samplers in (two, four):
        for sampler in samplers:
            for before in range(step - 3, step):
                sampler.sample(before, 4)
    assert set.union(*held(two, step)) == set.union(*held(four, step))
    fresh = with_all_tables(create_shards(4))
    for sampler, other in zip(four, fresh, strict=True):
        np.testing.assert_array_equal(
            sampler.sample(step, 8).indices, other.sample(step, 8).indices
        )
    states = [samplers[0].state(step) for samplers in (two, four)]
    assert [state.pop("num_shards") for state in states] == [2, 4]
    assert states[0] == states[1]


def test_a_state_is_small_and_says_where_it_is():
    (sampler,) = create_shards(1)
    sampler.sample(3, 8)
    assert sampler.state(3) == {
        "version": 5,
        "seed": 5,
        "step": 3,
        "num_records": SIZE,
        "sum_of_totals": sampler.candidates.sum_of_totals,
        "num_shards": 1,
    }
    assert isinstance(sampler, TripletSampler)


def test_a_state_tells_totals_in_another_order():
    totals = np.random.default_rng(0).lognormal(size=50)
    sums = {
        count_candidates(np.zeros((50, 1)), np.zeros(50, int), values).sum_of_totals
        for values in (totals, totals[::-1], totals * (1 + 1e-12))
    }
    assert len(sums) == 2
