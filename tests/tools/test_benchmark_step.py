"""`tools.benchmark step` measures what it says, with small sizes and no PyTorch."""

import dataclasses
import json
import pathlib
import re
import sys
from typing import ClassVar

import jax
import jax.numpy as jnp
import pytest

from deeprank_jax.training import network as network_lib
from deeprank_jax.training import step as step_lib
from tools.benchmark import step as benchmark_step
from tools.benchmark import step_cases, step_jax


def test_the_operations_of_the_demos_network_are_those_that_xla_counts():
    case = dataclasses.replace(step_cases.CASES["forward_convnet"], batch_size=1)
    config = step_jax.create_config(case)
    graphdef, _, state = network_lib.create_network(
        config, lambda: network_lib.create_model(config, None)
    )
    embed = jax.jit(step_lib.make_embed_step(graphdef))
    images = jax.ShapeDtypeStruct((1, case.size, case.size, 3), "uint8")
    counted = embed.lower(state, images).cost_analysis()["flops"]
    # XLA counts the other operations, too, and leaves out what padding multiplies.
    assert benchmark_step._forward_flops(case) == pytest.approx(counted, rel=0.15)


@pytest.mark.parametrize("name", ["step_convnet", "forward_convnet"])
def test_our_side_runs_a_case(name, monkeypatch):
    small = dataclasses.replace(
        step_cases.CASES[name], size=16, batch_size=4, embedding_dim=8
    )
    monkeypatch.setitem(step_cases.CASES, name, small)
    once = step_jax.prepare(name)
    once()
    once()


class FakeSide:
    """Answers at once, ours with half the seconds of PyTorch's."""

    started: ClassVar = []

    def __init__(self, python, module):
        self.started.append((python, module))
        self._seconds = {
            "tools.benchmark.step_jax": 1.0,
            "tools.benchmark.step_torch": 2.0,
        }
        self._seconds = self._seconds[module]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ask(self, name, repeats):
        factor = 1 + list(step_cases.CASES).index(name)
        return {"seconds": [self._seconds * factor] * repeats}


def test_every_number_is_measured(monkeypatch, capsys):
    FakeSide.started.clear()
    monkeypatch.setattr(step_cases, "Side", FakeSide)
    monkeypatch.setattr(benchmark_step, "_peak_flops", lambda: 1e12)
    product, profiled = jax.jit(lambda x: jnp.sin(x @ x)), []

    def prepare(name):
        profiled.append(name)
        return lambda: product(jnp.ones((64, 64))).block_until_ready()

    monkeypatch.setattr(step_jax, "prepare", prepare)
    values = benchmark_step.measure("another")
    assert FakeSide.started == [
        (sys.executable, "tools.benchmark.step_jax"),
        ("another", "tools.benchmark.step_torch"),
    ]  # fmt: skip
    assert json.loads(json.dumps(values)) == values
    names = "convnet", "resnet50", "lite0"
    cases = [("step", name) for name in names[:2]]
    cases += [("forward", name) for name in names]
    for i, (kind, network) in enumerate(cases, 1):
        assert values.pop(f"{kind}_ratio_{network}") == 0.5
        assert values.pop(f"{kind}_seconds_{network}") == i
        assert values.pop(f"{kind}_seconds_{network}_torch") == 2 * i
    # In one second: forward and twice that back, of three images a triplet.
    flops = benchmark_step._forward_flops(step_cases.CASES["step_convnet"])
    share = values.pop("step_peak_share_convnet")
    assert share == pytest.approx(3 * flops * 3 * 64 / 1e12)
    assert values == {"peak_gflops": 1e3}
    assert profiled == ["step_convnet", "step_resnet50"]
    printed = capsys.readouterr().out
    for network in names[:2]:
        said = printed.split(f"Parts of the time of a step of {network}:\n")[1]
        shares = re.findall(r"^ +(\d+)%  \w", said.split("\n\n")[0], re.MULTILINE)
        assert 95 <= sum(map(int, shares)) <= 105


def test_the_peak_is_that_of_the_fastest_product(monkeypatch):
    seconds = iter([0.5, 0.25, 1.0])
    monkeypatch.setattr(benchmark_step, "_timed", lambda fn: (fn(), next(seconds))[1])
    assert benchmark_step._peak_flops(size=8, repeats=3) == 2 * 8**3 / 0.25


_FAKE = """
import time
from tools.benchmark import step_cases

SECONDS = {"a": 0.02, "b": 0.04}
step_cases.serve(lambda name: lambda: time.sleep(SECONDS[name] * FACTOR))
"""


def test_sides_take_turns(tmp_path, monkeypatch):
    for name, factor in (("one", 1), ("two", 2)):
        (tmp_path / f"{name}_side.py").write_text(f"FACTOR = {factor}\n{_FAKE}")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{pathlib.Path(__file__).parents[2]}")
    with (
        step_cases.Side(sys.executable, "one_side") as ours,
        step_cases.Side(sys.executable, "two_side") as theirs,
    ):
        found = [
            step_cases.take_turns(ours, theirs, name, rounds=3, seconds=0.1)
            for name in ("a", "b")
        ]
        with pytest.raises(RuntimeError, match="The process that measures c has ended"):
            ours.ask("c", 1)
    for (one, two), least in zip(found, (0.02, 0.04), strict=True):
        assert one >= least
        assert two >= 2 * least
        assert one < two
