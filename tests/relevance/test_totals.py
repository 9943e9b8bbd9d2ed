import functools
import hashlib
import os
import pathlib
import subprocess
import sys
import types

from absl import logging
import numpy as np
import pytest

from deeprank_jax import progress, relevance
from deeprank_jax.relevance import fingerprint, totals

KIND = relevance.Embedding("not read.npy")


def random_vectors(size, seed=0):
    rng = np.random.default_rng(seed)
    return (0.5 * rng.standard_normal((size, 8))).astype(np.float32)


def brute_force(vectors, category):
    wide = vectors.astype(np.float64)
    sums = np.zeros(len(wide))
    for i, x in enumerate(wide):
        others = (category == category[i]) & (np.arange(len(wide)) != i)
        sums[i] = np.exp(-np.sum((wide[others] - x) ** 2, axis=1)).sum()
    return sums


def never(*args, **kwargs):
    raise AssertionError("all pairs were compared again")


@pytest.mark.parametrize(("pairs", "width"), [(2**18, 512), (64, 7), (1, 1)])
def test_totals_are_sums_over_the_category(monkeypatch, pairs, width):
    monkeypatch.setattr(totals, "_PAIRS", pairs)
    monkeypatch.setattr(totals, "_WIDTH", width)
    vectors = random_vectors(60)
    category = np.random.default_rng(1).integers(5, 9, 60)
    category[0] = 100  # A category of one.
    found = relevance.total_relevance(KIND, vectors, category, progress=False)
    assert found.dtype == np.float64
    assert found[0] == 0
    np.testing.assert_allclose(found, brute_force(vectors, category), rtol=1e-5)


def test_a_large_category_is_estimated(monkeypatch):
    logged = []
    log = lambda text, *args: logged.append(text % args)
    monkeypatch.setattr(logging, "warning", log)
    monkeypatch.setattr(totals, "_LARGEST_EXACT", 300)
    monkeypatch.setattr(totals, "_NUM_LANDMARKS", 200)
    vectors = random_vectors(400)
    category = np.repeat([0, 1], [350, 50])
    found = relevance.total_relevance(KIND, vectors, category, progress=False)
    expected = brute_force(vectors, category)
    np.testing.assert_allclose(found[350:], expected[350:], rtol=1e-5)
    errors = np.abs(found[:350] / expected[:350] - 1)
    assert 1e-4 < errors.mean() < 0.1
    assert len(logged) == 1
    assert "category of 350 records is estimated from 200 of them; on 64" in logged[0]
    again = relevance.total_relevance(KIND, vectors, category, progress=False)
    np.testing.assert_array_equal(again, found)


@pytest.mark.slow
def test_estimates_have_no_bias(monkeypatch):
    monkeypatch.setattr(totals, "_LARGEST_EXACT", 20)
    monkeypatch.setattr(totals, "_NUM_LANDMARKS", 10)
    monkeypatch.setattr(totals, "_NUM_EXACT", 5)
    vectors, one = random_vectors(30), np.zeros(30, int)
    estimates = []
    for seed in range(2_000):
        monkeypatch.setattr(totals, "_SEED", seed)
        estimates.append(totals.total_relevance(KIND, vectors, one, progress=False))
    error = np.std(estimates, axis=0) / np.sqrt(len(estimates))
    expected = brute_force(vectors, one)
    assert np.all(np.abs(np.mean(estimates, axis=0) - expected) < 5 * error)


def test_what_took_a_pass_is_kept(tmp_path, monkeypatch):
    vectors, category = random_vectors(40), np.arange(40) % 3
    total = lambda kind=KIND, vectors=vectors, category=category: (
        relevance.total_relevance(
            kind, vectors, category, cache=tmp_path / "cache", progress=False
        )
    )
    assert isinstance(total(), np.memmap)
    found = np.array(total())
    (name,) = os.listdir(tmp_path / "cache")
    with monkeypatch.context() as patched:
        patched.setattr(totals, "_compare_all", never)
        np.testing.assert_array_equal(total(), found)
        others = [
            {"kind": relevance.Embedding("not read.npy", scale=2.0)},
            {"kind": relevance.Embedding("not read.npy", "linear")},
            {"vectors": random_vectors(40, seed=1)},
            {"category": np.arange(40) % 4},
        ]
        for other in others:
            with pytest.raises(AssertionError, match="compared again"):
                total(**other)
    np.save(tmp_path / "short.npy", np.array(found)[:-1])
    short = (tmp_path / "short.npy").read_bytes()
    whole = (tmp_path / "cache" / name).read_bytes()
    flipped = [
        whole[:i] + bytes([whole[i] ^ 4]) + whole[i + 1 :]
        for i in range(0, len(whole), 7)
    ]
    for content in (b"", b"half a file", short, whole[:-1], *flipped):
        (tmp_path / "cache" / name).write_bytes(content)
        np.testing.assert_array_equal(total(), found)
    np.testing.assert_allclose(found, brute_force(vectors, category), rtol=1e-5)
    assert os.listdir(tmp_path / "cache") == [name]


def test_a_function_that_was_changed_is_asked_again(tmp_path, monkeypatch):
    labels = np.random.default_rng(0).integers(0, 5, (40, 2))
    power = 1
    of_power = lambda a, b: (1.0 * (a == b).mean(-1)) ** power
    kind = relevance.LabelFunction(of_power)
    total = lambda kind: relevance.total_relevance(
        kind, labels, np.zeros(40), cache=tmp_path, progress=False
    )
    first = np.array(total(kind))
    same = relevance.LabelFunction(lambda a, b: (1.0 * (a == b).mean(-1)) ** power)
    with monkeypatch.context() as patched:
        patched.setattr(totals, "_compare_all", never)
        np.testing.assert_array_equal(total(same), first)
    power = 2
    assert np.all(total(kind) < first)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
@pytest.mark.parametrize("closed", [False, True])
def test_a_total_that_cannot_be(tmp_path, bad, closed):
    class Broken:
        def pairwise(self, a, b):
            last = np.maximum(a[..., 0], b[..., 0]) == 5
            return np.where(last, bad, 0.0)

    kind = Broken()
    if closed:
        kind.total = lambda attributes: np.where(np.arange(6) == 3, bad, 0.0)
    else:
        kind.pairwise = lambda a, b: np.where(a[..., 0] + b[..., 0] == 8, bad, 0.0)
    message = r"at least 0, got .* for r3;" if closed else "of 'r3' and 'r5' is"
    with pytest.raises(ValueError, match=message):
        relevance.total_relevance(
            kind,
            np.arange(6)[:, None],
            np.zeros(6, int),
            describe="r{}".format,
            cache=tmp_path,
            progress=False,
        )
    assert not os.listdir(tmp_path)


def test_a_pass_shows_how_far_it_is(capfd, monkeypatch):
    monkeypatch.setattr(progress, "_is_terminal", lambda: True)
    relevance.total_relevance(KIND, random_vectors(40), np.zeros(40, int))
    assert "total relevance" in capfd.readouterr().err
    relevance.total_relevance(
        KIND, random_vectors(40), np.zeros(40, int), progress=False
    )
    assert not capfd.readouterr().err


def test_a_folder_that_cannot_be_written_to_costs_only_time(tmp_path, warnings_logged):
    (tmp_path / "file").touch()
    vectors, category = random_vectors(40), np.zeros(40)
    found = totals.total_relevance(
        KIND, vectors, category, cache=tmp_path / "file" / "cache", progress=False
    )
    np.testing.assert_allclose(found, brute_force(vectors, category), rtol=1e-5)
    (warning,) = warnings_logged
    assert "are not cached (Not a directory)" in warning


def test_a_bad_pair_is_found_among_many_good_ones():
    """Its row sum is above 0, and it is none of those tried before training."""
    bad = lambda a, b: np.where(a[..., 0] + b[..., 0] == 7, -0.5, 1.0)
    with pytest.raises(ValueError, match=r"of 'record 0' and 'record 7' is -0\.5"):
        totals.total_relevance(
            relevance.LabelFunction(bad),
            np.arange(40)[:, None],
            np.zeros(40),
            progress=False,
        )


def test_a_literal_that_was_changed_is_asked_again(tmp_path):
    """Also where the probed pairs do not tell."""

    def create(value):
        fn = eval(f"lambda a, b: np.where(a[..., 0] + b[..., 0] == 3, {value}, 1.0)")
        return relevance.LabelFunction(fn)

    labels = np.arange(1000)[:, None]
    options = {"cache": tmp_path, "progress": False}
    one, other = (
        np.array(totals.total_relevance(create(v), labels, np.zeros(1000), **options))
        for v in (5.0, 9.0)
    )
    assert one[0] == 998 + 5.0
    assert other[0] == 998 + 9.0


def digest_of(part):
    digest = hashlib.sha256()
    fingerprint.add_parts(digest, part)
    return digest.hexdigest()


OWN = """
import functools
import math
import numpy as np

SCALE = 1.0
TABLE = np.zeros(5_000)

def helper(a):
    return a * 1.5

def closes_over(xp, power):
    def fn(a, b):
        return xp.exp(-abs(a - b).sum(-1)) ** power
    return fn

def again(n=1):
    return again(n - 1) if n else math.exp(SCALE)

class Base:
    bias = 0.25

    def weight(self):
        return 1.0

class Own(Base):
    def __init__(self, size):
        self.size = {"size": size, "itself": self}

    @property
    def level(self):
        return 3

    @staticmethod
    def gap(a):
        return a + 7 if a in {"north", "south", "east", "west"} else a

    def pairwise(self, a, b):
        both = [x * 11 for x in (a, b)]
        return helper(super().weight() + TABLE[0] + both[0])

def create():
    bound = Own(13).pairwise
    partial = functools.partial(helper, [17])
    return [Own(2), closes_over(np, 2), again, bound, partial, Own]
"""


def parts_of(source):
    module = types.ModuleType("own")
    exec(source, vars(module))
    return vars(module)["create"]()


def test_what_is_the_same_has_the_same_fingerprint():
    first, again = (list(map(digest_of, parts_of(OWN))) for _ in range(2))
    assert first == again
    assert len(set(first)) == len(first)


@pytest.mark.slow
def test_another_process_finds_the_same():
    script = f"""
import sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
import test_totals as t
print([t.digest_of(part) for part in t.parts_of(t.OWN)])
print(t.digest_of(t.relevance.WithinCategory(t.KIND, 0)))
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONWARNINGS": ""},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("SCALE = 1.0", "SCALE = 2.0", [2]),
        ("np.zeros(5_000)", "np.eye(1, 5_000, 2_500)[0]", [0, 3, 5]),
        ("* 1.5", "* 1.6", [0, 3, 4, 5]),
        ("** power", "/ power", [1]),
        ("closes_over(np, 2)", "closes_over(np, 3)", [1]),
        ("again(n=1)", "again(n=2)", [2]),
        ("bias = 0.25", "bias = 0.5", [0, 3, 5]),
        ("return 1.0", "return 2.0", [0, 3, 5]),
        ('"size": size', '"size": size + 1', [0, 3]),
        ("return 3", "return 4", [0, 3, 5]),
        ("+ 7", "+ 8", [0, 3, 5]),
        ("x * 11", "x * 12", [0, 3, 5]),
        ("Own(13)", "Own(14)", [3]),
        ("[17]", "[18]", [4]),
    ],
)
def test_what_was_changed_has_another_fingerprint(before, after, changed):
    assert OWN.count(before) == 1
    pairs = zip(parts_of(OWN), parts_of(OWN.replace(before, after)), strict=True)
    found = [i for i, (a, b) in enumerate(pairs) if digest_of(a) != digest_of(b)]
    assert found == changed


def test_a_class_whose_method_was_changed_is_asked_again(tmp_path):
    """Also where the probed pairs do not tell."""

    def create(value):
        class Own:
            attributes = None
            pairwise = staticmethod(
                eval(f"lambda a, b: np.where(a[..., 0] + b[..., 0] == 3, {value}, 1.0)")
            )

        return Own()

    labels = np.arange(1000)[:, None]
    for value in (5.0, 9.0):
        found = totals.total_relevance(
            create(value), labels, np.zeros(1000), cache=tmp_path, progress=False
        )
        assert found[0] == 998 + value


def test_a_function_with_a_module_at_hand_can_be_kept(tmp_path):
    def create():
        import numpy as xp

        return functools.partial(lambda a, b: 1.0 * xp.all(a == b, axis=-1))

    kind, labels = relevance.LabelFunction(create()), np.arange(40)[:, None] % 4
    found = totals.total_relevance(
        kind, labels, np.zeros(40), cache=tmp_path, progress=False
    )
    assert found.tolist() == [9] * 40
