"""`tools.benchmark step` measures what it says, with small sizes and no PyTorch."""

import dataclasses
import pathlib
import sys

import jax
import pytest

from deeprank_jax import learner, train_step
from tools import benchmark_cases, benchmark_jax, benchmark_step


def test_the_operations_of_the_demos_network_are_those_that_xla_counts():
    case = dataclasses.replace(benchmark_cases.CASES["forward_convnet"], batch_size=1)
    config = benchmark_jax.create_config(case)
    graphdef, _, state = learner.create_network(config)
    embed = jax.jit(train_step.make_embed_step(graphdef))
    images = jax.ShapeDtypeStruct((1, case.size, case.size, 3), "uint8")
    counted = embed.lower(state, images).cost_analysis()["flops"]
    # XLA counts the other operations, too, and leaves out what padding multiplies.
    assert benchmark_step._forward_flops(case) == pytest.approx(counted, rel=0.15)


@pytest.mark.parametrize("name", ["step_convnet", "forward_convnet"])
def test_our_side_runs_a_case(name, monkeypatch):
    small = dataclasses.replace(
        benchmark_cases.CASES[name], size=16, batch_size=4, embedding_dim=8
    )
    monkeypatch.setitem(benchmark_cases.CASES, name, small)
    once = benchmark_jax.prepare(name)
    once()
    once()


_FAKE = """
import time
from tools import benchmark_cases

SECONDS = {"a": 0.02, "b": 0.04}
benchmark_cases.serve(lambda name: lambda: time.sleep(SECONDS[name] * FACTOR))
"""


def test_sides_take_turns(tmp_path, monkeypatch):
    for name, factor in (("one", 1), ("two", 2)):
        (tmp_path / f"{name}_side.py").write_text(f"FACTOR = {factor}\n{_FAKE}")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{pathlib.Path(__file__).parents[1]}")
    with (
        benchmark_cases.Side(sys.executable, "one_side") as ours,
        benchmark_cases.Side(sys.executable, "two_side") as theirs,
    ):
        found = [
            benchmark_cases.take_turns(ours, theirs, name, rounds=3, seconds=0.1)
            for name in ("a", "b")
        ]
        with pytest.raises(RuntimeError, match="The process that measures c has ended"):
            ours.ask("c", 1)
    for (one, two), least in zip(found, (0.02, 0.04), strict=True):
        assert one >= least
        assert two >= 2 * least
        assert one < two
