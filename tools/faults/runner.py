"""Runner of the trials of all kinds, which counts their ends."""

from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import pathlib
import random
import shutil
import tempfile
import traceback

import tqdm

from tools.faults.samples import Samples
from tools.faults.trial import FAILURES, Kind, Outcome, Trial

Report = Callable[[str], object]


def run_kinds(
    kinds: Mapping[str, Callable[[], Kind]],
    samples: Samples,
    *,
    num_trials: int,
    seed: int = 0,
    first: int = 0,
    report: Report = tqdm.tqdm.write,
    counts: dict[str, int] | None = None,
    on_trial: Callable[[], object] = lambda: None,
) -> dict[str, int]:
    """Tries every kind, and returns the counts `KIND_tried`, `KIND_detected`, ...

    Args:
      kinds: Constructors of the kinds by name.
      samples: Samples that the kinds share.
      num_trials: Number of trials of each kind.
      seed: Seed of all trials.
      first: Number of the first trial.
      report: Function that receives a line for each trial that failed.
      counts: Counts to add to, which has those so far after an interrupt.
      on_trial: Function that is called after each trial.
    """
    counts = {} if counts is None else counts
    for name, create in kinds.items():
        with contextlib.ExitStack() as stack:
            folder = pathlib.Path(stack.enter_context(_scratch_folder()))
            kind = create()
            kind.prepare(samples, folder / "prepared")
            numbers = tqdm.tqdm(
                range(first, first + num_trials),
                desc=name,
                unit="trial",
                disable=None,
            )
            for outcomes in _count(kind, name, numbers, folder, seed, report):
                counts |= {f"{name}_{key}": x for key, x in outcomes.items()}
                on_trial()
    return counts


def count_failures(counts: Mapping[str, int]) -> int:
    """Returns the number of trials that were silent, hung or ended in a traceback."""
    return sum(
        value for key, value in counts.items() if key.rpartition("_")[2] in FAILURES
    )


def _count(
    kind: Kind,
    name: str,
    numbers: Iterable[int],
    folder: pathlib.Path,
    seed: int,
    report: Report,
) -> Iterator[dict[str, int]]:
    """Yields the number of trials, and how many had each outcome, after each trial."""
    counts = {"tried": 0, **{outcome.value: 0 for outcome in Outcome}}
    for number in numbers:
        place = folder / "trial"
        place.mkdir()
        trial = _run(kind, place, random.Random(f"{seed}/{name}/{number}"))
        counts["tried"] += 1
        counts[trial.outcome.value] += 1
        if trial.outcome in FAILURES:
            report(
                f"{trial.outcome.value}: {trial.fault}: {trial.detail} "
                f"(--only={name} --seed={seed} --first={number} --trials=1)"
            )
        shutil.rmtree(place, ignore_errors=True)
        yield counts


def _run(kind: Kind, folder: pathlib.Path, rng: random.Random) -> Trial:
    """Runs a trial; an error of the trial itself is one of the project."""
    try:
        return kind.run(folder, rng)
    except Exception:
        return Trial("the trial", Outcome.TRACEBACK, traceback.format_exc())


def _scratch_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="deeprank_faults_")
