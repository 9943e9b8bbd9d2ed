"""Time of a train step and of a forward pass, compared with PyTorch.

Prints the largest parts of our step's time, and its share of the machine's peak, a
large matrix product.
"""

import argparse
import collections
from collections.abc import Callable, Mapping
import pathlib
import sys
import tempfile
import time

from tools.benchmark import step_cases

_TOP = 8


def add_torch_python(parser: argparse.ArgumentParser) -> None:
    """Adds `--torch_python`."""
    parser.add_argument(
        "--torch_python", metavar="PATH", default=sys.executable,
        help="Python of an environment with PyTorch (default: this one)",
    )  # fmt: skip


def measure(torch_python: str) -> dict[str, float]:
    """Returns the ratios of our time to PyTorch's, and the seconds.

    Args:
      torch_python: Python of an environment with PyTorch.
    """
    values: dict[str, float] = {}
    with (
        step_cases.Side(sys.executable, "tools.benchmark.step_jax") as ours,
        step_cases.Side(torch_python, "tools.benchmark.step_torch") as theirs,
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
        print(f"\nParts of the time of a {name.replace('_', ' of ')}:")
        for kind, share in _profile(name).items():
            print(f"  {share:>4.0%}  {kind}")
    return values


def _forward_flops(case: step_cases.Case) -> int:
    """Returns the number of multiplications and additions of the demo's network."""
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
    """Returns the operations per second of a large float32 matrix product."""
    import jax
    import jax.numpy as jnp

    from tools.benchmark import step_jax  # noqa: F401  Sets the backend's flags.

    x = jnp.ones((size, size), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    best = min(
        _timed(lambda: product(x, x).block_until_ready()) for _ in range(repeats)
    )
    return 2 * size**3 / best


def _timed(fn: Callable[[], object]) -> float:
    start = time.perf_counter()
    fn()
    return time.perf_counter() - start


def _profile(name: str) -> Mapping[str, float]:
    """Returns the slowest kinds of operations and their shares of the step's time."""
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
    duration: collections.Counter[str] = collections.Counter()
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats:
                    kind = str(stats["hlo_op"]).split(".")[0]
                    duration[kind] += event.duration_ns
    total = sum(duration.values()) or 1
    return {kind: ns / total for kind, ns in duration.most_common(_TOP)}
