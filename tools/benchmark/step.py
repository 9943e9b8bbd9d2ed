"""How long a train step and a forward pass take, beside PyTorch: `benchmark step`.

Prints where the time of our step goes, and how much of the machine's own peak, a
large matrix product, it reaches.
"""

import collections
from collections.abc import Mapping
import pathlib
import sys
import tempfile
import time

from absl import flags

from tools.benchmark import step_cases

_TORCH_PYTHON = flags.DEFINE_string(
    "torch_python", sys.executable, "step: the Python of an environment with PyTorch."
)
_TOP = 8


def measure() -> dict[str, float]:
    """Returns the ratios, ours by PyTorch's, and the seconds behind them."""
    values: dict[str, float] = {}
    with (
        step_cases.Side(sys.executable, "tools.benchmark.step_jax") as ours,
        step_cases.Side(_TORCH_PYTHON.value, "tools.benchmark.step_torch") as theirs,
    ):
        for name in step_cases.CASES:
            one, two = step_cases.take_turns(ours, theirs, name)
            kind, network = name.split("_", 1)
            values[f"{kind}_ratio_{network}"] = one / two
            values[f"{kind}_seconds_{network}"] = one
            values[f"{kind}_seconds_{network}_torch"] = two
            print(f"{name}: {one:.4f} s, PyTorch {two:.4f} s, {one / two:.2f}")
    peak = _peak_flops()
    case = step_cases.CASES["step_convnet"]
    flops = 3 * _forward_flops(case) * 3 * case.batch_size
    values["peak_gflops"] = peak / 1e9
    values["step_peak_share_convnet"] = flops / values["step_seconds_convnet"] / peak
    for name in ("step_convnet", "step_resnet50"):
        print(f"\nWhere a {name.replace('_', ' of ')} spends its time:")
        for kind, share in _profile(name).items():
            print(f"  {share:>4.0%}  {kind}")
    return values


def _forward_flops(case: step_cases.Case) -> int:
    """Returns the multiplications and additions of the demo's network, by hand."""
    widths, size, total = (32, 64, 128, 256), case.size, 0
    for before, after in zip((3, *widths), widths, strict=False):
        total += size**2 * 9 * before * after
        size = -(-size // 2)
    features = widths[-1] * size**2
    for path in case.paths:
        small = -(-case.size // path["subsample"])
        convolved = -(-small // path["stride"])
        total += convolved**2 * path["kernel"] ** 2 * 3 * path["width"]
        features += path["width"] * (-(-convolved // path["pool_stride"])) ** 2
    return 2 * (total + features * case.embedding_dim)


def _peak_flops(size: int = 3072, repeats: int = 5) -> float:
    """Returns the operations a second of the fastest large float32 matrix product."""
    import jax
    import jax.numpy as jnp

    from tools.benchmark import step_jax  # noqa: F401  It sets the backend's flags.

    x = jnp.ones((size, size), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    best = min(
        _timed(lambda: product(x, x).block_until_ready()) for _ in range(repeats)
    )
    return 2 * size**3 / best


def _timed(fn) -> float:
    start = time.perf_counter()
    fn()
    return time.perf_counter() - start


def _profile(name: str) -> Mapping[str, float]:
    """Returns the largest kinds of operations and their shares of the step's time."""
    import jax

    from tools.benchmark import step_jax

    once = step_jax.prepare(name)
    once()
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            for _ in range(3):
                once()
        (path,) = pathlib.Path(directory).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(path))
    spent: collections.Counter[str] = collections.Counter()
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats:
                    kind = str(stats["hlo_op"]).split(".")[0]
                    spent[kind] += event.duration_ns
    total = sum(spent.values()) or 1
    return {kind: spent[kind] / total for kind, _ in spent.most_common(_TOP)}
