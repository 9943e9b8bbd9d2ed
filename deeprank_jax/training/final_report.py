"""Final evaluation of a run: metrics, test embeddings and the report."""

from collections.abc import Mapping
import functools
import pathlib
from typing import Any

from absl import logging
import jax
import ml_collections
import numpy as np

from deeprank_jax import files, report, version
from deeprank_jax.data import dataset_name, leakage, rated_triplets
from deeprank_jax.distributed import processes
from deeprank_jax.evaluation.compare import (
    Intervals,
    Results,
    SystemComparison,
    compare_with_baselines,
    count_query_classes,
    describe_few_queries,
)
from deeprank_jax.evaluation.split import SplitEvaluation
from deeprank_jax.progress import Bar, working
from deeprank_jax.report import verdict
from deeprank_jax.report.thumbnails import Thumbnails
from deeprank_jax.sampling import create, pair_file
from deeprank_jax.sampling.pair_sampler import ListedPairs
from deeprank_jax.training import image_digest, metrics_writer, whitening
from deeprank_jax.training.experiment import (
    Experiment,
    create_reader,
    describe_run_metrics,
)
from deeprank_jax.training.next_commands import next_commands
from deeprank_jax.training.workdir import Workdir

_THUMBNAIL = 72  # Pixels.
# Steps whose triplets are shown, and triplets drawn there for the statistics.
_DRAWN_STEPS, _DRAWN_MORE = 6, 500
# Images that are shown with their reconstructions.
_NUM_RECONSTRUCTED = 12


def create_split_evaluations(experiment: Experiment) -> dict[str, SplitEvaluation]:
    """Creates the evaluations of validation and test.

    Raises:
      DataError: The rated triplets or pairs that the config names cannot be used.
    """
    names = [name for name in ("validation", "test") if name in experiment.records]

    @functools.cache  # A file of all splits is read, and warned of, once.
    def read_ratings(file: str) -> dict[str, rated_triplets.RatedTriplets]:
        return rated_triplets.read_rated_splits(file, experiment.records, names)

    def read_pairs(split: str, file: str) -> ListedPairs:
        parts = dict(experiment.records)
        records = parts.pop(split)
        root = experiment.config.data.dir
        return pair_file.read_pairs(file, records, others=[*parts.values()], root=root)

    return {
        split: SplitEvaluation(
            experiment.config,
            split,
            experiment.records[split],
            experiment.readers[split],
            experiment.relevance,
            experiment.workdir,
            read_ratings=read_ratings,
            read_pairs=functools.partial(read_pairs, split),
        )
        for split in names
    }


def find_leakage(experiment: Experiment) -> dict[str, leakage.Leakage]:
    """Finds images that validation and test share with training, and warns of them.

    They are searched for once, kept in the workdir, and decide nothing. A warning says
    if the images are not those that the run began with; they are searched again.
    """
    path, records = Workdir(experiment.workdir).leakage, experiment.records
    max_images = experiment.config.evaluation.max_compared
    digests = image_digest.digest_images(records)
    image_digest.note_images(Workdir(experiment.workdir).images, digests)
    inputs: dict[str, object] = dict(digests)
    inputs["max_images"] = max_images
    leakages = leakage.read_leakage(path, inputs)
    if leakages is None:
        progress = functools.partial(Bar, unit="batch", leave=False)
        with working("Looking for copies of training images"):
            leakages = leakage.find_leakage(
                records,
                experiment.readers,
                max_images=max_images,
                progress=lambda batches, name: progress(batches, desc=name),
            )
        leakage.write_leakage(path, leakages, inputs)
    leakage.warn_of_leakage(leakages)
    return leakages


def finish(
    experiment: Experiment,
    splits: dict[str, SplitEvaluation],
    leakages: dict[str, leakage.Leakage],
    *,
    seconds: float,
    command: str = "",
) -> pathlib.Path:
    """Evaluates the best checkpoint on validation and test and writes the report.

    Args:
      experiment: Parts of the run, after training.
      splits: Evaluations from `create_split_evaluations`.
      leakages: Leakage of each split, for the report.
      seconds: Run time of this process, for the report.
      command: Command line of the run, for the report.

    Returns:
      The report's path. Beside it `results.json`, `intervals.json` and
      `test_embeddings.npz` are written to the workdir, by process 0 alone.
    """
    best = experiment.checkpoints.best_step()
    if best is not None:
        experiment.restore(best)
    if processes.is_first():
        Workdir(experiment.workdir).unseal()
    num_fitted = whitening.whiten(experiment)
    if best == 0:
        logging.warning(
            "Training did not help: the network to start from has the best %s on "
            "validation, and is the result.",
            experiment.config.evaluation.best_metric,
        )
    results, intervals, (embeddings, ok), comparison = _measure(experiment, splits)
    workdir = Workdir(experiment.workdir)
    if not processes.is_first():
        return workdir.report / "index.html"
    files.write_json(workdir.intervals, intervals)
    # The last of the two: with it, the metrics are complete.
    files.write_json(workdir.results, results)
    with files.replacing(workdir.test_embeddings) as file:
        np.savez(file, embeddings=embeddings, ok=ok)
    workdir.seal()
    facts = _facts(experiment, best, seconds)
    if num_fitted:
        facts["Whitening"] = (
            f"power {experiment.config.model.whitening_power:g}, fitted on "
            f"{num_fitted:,} training images"
        )
    few = _warn_of_few_queries(splits, results, intervals)
    _add_lines(facts, splits, leakages, few)
    inputs = _create_inputs(experiment, results, intervals, facts, command)
    records = experiment.records
    caveat = records.get("test", records["validation"]).caveat
    inputs["caveats"] = [*filter(None, [caveat]), *_find_caveats(leakages, few)]
    page = _write_report(experiment, inputs, comparison, embeddings, ok)
    _write_verdict(workdir, inputs, caveat)
    # With the checksum of the report, the run is finished.
    workdir.seal_finished()
    return page


def _write_verdict(workdir: Workdir, inputs: Mapping[str, Any], caveat: str) -> None:
    """Writes the verdict of the report, and the version that both are of."""
    names = ("results", "intervals", "num_classes", "meanings")
    result = verdict.create_verdict(**{name: inputs[name] for name in names})
    files.write_text(workdir.version, f"{version.number()}\n")
    with files.replacing(workdir.verdict) as file:
        file.write(f"{result.text}\n{result.note}\n".encode())
        if caveat:
            file.write(f"{caveat}\n".encode())


def _add_lines(
    facts: dict[str, str],
    splits: dict[str, SplitEvaluation],
    leakages: dict[str, leakage.Leakage],
    few_queries: dict[str, str],
) -> None:
    """Adds facts of each split, one line per split."""
    lines = [("Seen in training", s, x.describe()) for s, x in leakages.items()]
    lines += [("Few queries", split, text) for split, text in few_queries.items()]
    lines += _describe_splits(splits)
    for title, split, text in lines:
        line = f"{split}: {text}"
        facts[title] = f"{facts[title]}\n{line}" if title in facts else line


def _find_caveats(
    leakages: dict[str, leakage.Leakage], few_queries: dict[str, str]
) -> list[str]:
    """Returns sentences on what makes the metrics less certain, or too good."""
    caveats = [f"{split}: {text}." for split, text in few_queries.items()]
    return caveats + [
        f"{split} shares images or classes with training: {x.describe()}."
        for split, x in leakages.items()
        if x.copies or x.seen_classes
    ]


def _warn_of_few_queries(
    splits: dict[str, SplitEvaluation],
    results: dict[str, Results],
    intervals: dict[str, Intervals],
) -> dict[str, str]:
    """Logs and returns a warning for each split with few queries."""
    warnings = {}
    for split in splits:
        if warning := describe_few_queries(results[split], intervals.get(split, {})):
            logging.warning("%s: %s.", split, warning)
            warnings[split] = warning
    return warnings


def _num_classes(experiment: Experiment) -> dict[str, int]:
    """Returns the number of classes of queries by split."""
    return {
        split: count_query_classes(records.labels)
        for split, records in experiment.records.items()
    }


def _describe_splits(
    splits: dict[str, SplitEvaluation],
) -> list[tuple[str, str, str]]:
    """Returns title, split and text of the evaluators' lines of the report."""
    return [
        (title, split, text)
        for split, evaluation in splits.items()
        for evaluator in evaluation.evaluators.values()
        for title, text in evaluator.facts().items()
    ]


def _measure(
    experiment: Experiment, splits: dict[str, SplitEvaluation]
) -> tuple[
    dict[str, Results],
    dict[str, Intervals],
    tuple[np.ndarray, np.ndarray],
    SystemComparison,
]:
    """Returns results and intervals of all splits, embeddings and more of the last."""
    config = experiment.config
    with working("Creating the network before training", shown=processes.is_first()):
        untrained = experiment.create_initial_state()
    networks = {"untrained": functools.partial(experiment.embed, untrained)}
    whitened = whitening.whiten_untrained(experiment, untrained)
    if whitened is not None:
        networks["whitened"] = functools.partial(experiment.embed, whitened)
    if config.init_from or config.model.weights:
        networks["frozen"] = functools.partial(experiment.features, untrained)
    results: dict[str, Results] = {}
    intervals: dict[str, Intervals] = {}
    comparison, embedded = None, None
    for split, evaluation in splits.items():
        embedded = evaluation.embed(
            lambda images: experiment.embed(experiment.state, images),
            split,
            must_be_finite=True,
        )
        comparison = compare_with_baselines(
            evaluation,
            embedded,
            networks,
            functools.partial(experiment.embed, experiment.state),
        )
        results[split], intervals[split] = comparison.results, comparison.intervals
    assert embedded is not None, "there is a split"
    assert comparison is not None, "there is a split"
    task_metrics = experiment.validate_task(experiment.state)
    if task_metrics:
        before = experiment.validate_task(untrained)
        split = getattr(experiment.task, "validation_split", "held out")
        results.setdefault(split, {})[config.task.name] = {
            name.split("/", 1)[1]: {"model": value, "untrained": before[name]}
            for name, value in task_metrics.items()
        }
    return results, intervals, embedded, comparison


def _create_inputs(
    experiment: Experiment,
    results: dict[str, Results],
    intervals: dict[str, Intervals],
    facts: dict[str, str],
    command: str,
) -> dict[str, Any]:
    """Returns the inputs of the report that need neither images nor embeddings."""
    config = experiment.config
    return {
        "title": experiment.workdir.name,
        "command": command,
        "next_commands": next_commands(config, experiment.workdir),
        "facts": facts,
        "results": results,
        "intervals": intervals,
        "num_classes": _num_classes(experiment),
        "metrics": metrics_writer.read_metrics(experiment.workdir),
        "relevance": experiment.relevance,
        "meanings": describe_run_metrics(config, experiment.task),
        "seed": config.seed,
    }


def _write_report(
    experiment: Experiment,
    inputs: dict[str, Any],
    comparison: SystemComparison,
    embeddings: np.ndarray,
    ok: np.ndarray,
) -> pathlib.Path:
    logging.info("Writing the report.")
    config, records = experiment.config, experiment.records
    test, train = records.get("test", records["validation"]), records["train"]
    with (
        working("Writing the report", is_named=True),
        create_reader(config, test, image_size=_THUMBNAIL) as test_reader,
        create_reader(config, train, image_size=_THUMBNAIL) as train_reader,
    ):
        triplets = None
        if experiment.task.draws_triplets:
            triplets = _draw_again(
                experiment, lambda indices: train_reader.load(indices)[0]
            )
        return report.write_report(
            report.ReportInputs(
                **inputs,
                embeddings=embeddings,
                records=test,
                thumbnails=lambda indices: test_reader.load(indices)[0],
                ok=ok,
                ranking=comparison.ranking,
                matrices=comparison.matrices,
                drawn=triplets,
                reconstructions=_reconstruct(experiment, ok),
            ),
            Workdir(experiment.workdir).report,
        )


def _reconstruct(
    experiment: Experiment, ok: np.ndarray
) -> report.Reconstructions | None:
    """Returns pictures of images `ok [N]` that the task restores, if it does."""
    reconstruct = getattr(experiment.task, "reconstruct", None)
    indices = np.flatnonzero(ok)
    if reconstruct is None or not len(indices):
        return None
    num = min(_NUM_RECONSTRUCTED, experiment.config.evaluation.batch_size)
    places = np.linspace(0, len(indices) - 1, min(num, len(indices))).astype(int)
    rows = reconstruct(
        lambda images: experiment.logits(experiment.state, images),
        experiment.readers["test" if "test" in experiment.records else "validation"],
        indices[places],
    )
    return report.Reconstructions(indices=indices[places], rows=rows)


def _draw_again(experiment: Experiment, thumbnails: Thumbnails) -> report.DrawnTriplets:
    """Draws the sampler's triplets at a few steps of the run once more."""
    last = (experiment.checkpoints.latest_step() or experiment.config.num_steps) - 1
    steps = np.unique(np.linspace(0, last, _DRAWN_STEPS).astype(int))
    sampler = experiment.sampler
    sizes = [experiment.config.batch_size // jax.process_count()]
    if not sampler.has_fixed_steps:
        sizes.append(_DRAWN_MORE)
    batches: list[Any] = [
        sampler.sample(int(step), size) for step in steps for size in sizes
    ]
    return report.DrawnTriplets(
        indices=np.concatenate([batch.indices for batch in batches]),
        relevance=np.concatenate([batch.relevance for batch in batches]),
        in_class=np.concatenate(
            [batch.in_class.reshape(len(batch.indices), -1) for batch in batches]
        ),
        steps=np.repeat(steps, sum(sizes)),
        records=experiment.records["train"],
        thumbnails=thumbnails,
        out_of_class=sampler.out_of_class,
    )


def _facts(experiment: Experiment, best: int | None, seconds: float) -> dict[str, str]:
    config, records = experiment.config, experiment.records
    sizes = ", ".join(
        f"{split} {len(part):,} ({len(np.unique(part.labels[:, -1])):,} classes)"
        for split, part in records.items()
    )
    optimizer, lines = config.optimizer, experiment.task.describe()
    return {
        "Dataset": dataset_name(config.data),
        "Images": f"{sizes}; {config.data.image_size} pixels",
        "Levels": " > ".join(records["train"].level_titles),
        "Relevance": f"{config.relevance.name} "
        f"{tuple(config.relevance.get('levels', ())) or ''}",
        "Network": ", ".join(filter(None, (_trunk(config), lines.pop("Head", "")))),
        **lines,
        "Optimizer": f"{optimizer.name}, learning rate {optimizer.learning_rate:g}, "
        f"{_describe_steps(experiment)} of {config.batch_size} {_unit(experiment)}",
        "Checkpoint": _describe_checkpoint(config, best),
        "Time": f"{seconds / 60:.1f} min in the process that finished",
        "Commit": version.commit(),
    }


def _describe_steps(experiment: Experiment) -> str:
    """Returns the number of steps, and where training ended before the last."""
    num_steps = experiment.config.num_steps
    ended = experiment.checkpoints.latest_step()
    text = f"{num_steps:,} steps"
    if ended is not None and ended < num_steps:
        return f"{ended:,} of {text}, until validation no longer improved,"
    return text


def _describe_checkpoint(config: ml_collections.ConfigDict, best: int | None) -> str:
    """Returns the step of the evaluated network, and its choice."""
    metric = config.evaluation.best_metric
    if best is None:
        return "the last step"
    if best == 0:
        return f"step 0, the network to start from: training did not raise {metric}"
    return f"step {best:,}, the best on validation by {metric}"


def _unit(experiment: Experiment) -> str:
    """Returns the unit of a batch's size."""
    if not experiment.task.draws_triplets:
        return getattr(experiment.task, "unit", "images")
    num_images = 1 + sum(create.group_size(experiment.config).values())
    return "triplets" if num_images == 3 else f"groups of {num_images} images"


def _trunk(config: ml_collections.ConfigDict) -> str:
    model = config.model
    start = config.init_from or model.weights
    return f"{model.trunk.name}" + (f" from {start}" if start else "")
