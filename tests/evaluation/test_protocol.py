"""What a run is judged by chooses nothing, and what it shares with training is told."""

import json
import shutil
import types

from helpers import shrunk
import numpy as np
import pytest

from deeprank_jax import data
from deeprank_jax.data import rated_triplets
from deeprank_jax.evaluation import split as split_lib
from deeprank_jax.training import final_report, loop, metrics_writer

pytestmark = pytest.mark.usefixtures("without_pictures")

ORDER = ("train", "validation", "test")


def create_config(images, **values):
    values = {"eval_every": 2, "evaluation.max_compared": 100, **values}
    return shrunk.create_config(images, **values)


def write_ratings(path, splits, num=30):
    """Rates triplets of each split, and one of an image that is not there."""
    rng = np.random.default_rng(0)
    triplets, start = [], 0
    for name in ORDER:
        drawn = [rng.choice(len(splits[name]), 3, replace=False) for _ in range(num)]
        triplets.append(np.array(drawn) + start)
        start += len(splits[name])
    ordered = {name: splits[name] for name in ORDER}
    rated_triplets.write_rated_triplets(path, np.concatenate(triplets), ordered)
    with path.open("a") as file:
        file.write("gone.png,{},{}\n".format(*map(splits["test"].describe, (0, 1))))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs twice; the second time the images of the test split are others."""
    folder_of_all = tmp_path_factory.mktemp("protocol")
    images = shrunk.write_images(folder_of_all / "a", num_classes=12, num_images=8)
    splits = data.create_records(create_config(images).data)
    assert splits["test"].name.endswith("/test")
    copied = splits["train"].describe(5), splits["test"].describe(2)
    shutil.copy(images / copied[0], images / copied[1])
    shutil.copytree(images, folder_of_all / "b")
    for index in range(len(splits["test"])):
        other = folder_of_all / "b" / splits["test"].describe(index)
        shutil.copy(images / splits["test"].describe((index * 7 + 3) % 9), other)
    write_ratings(folder_of_all / "rated.csv", splits)
    found = []
    for name in "ab":
        events = []
        with pytest.MonkeyPatch.context() as patch:
            watch(patch, events)
            config = create_config(
                folder_of_all / name,
                **{
                    "evaluation.evaluators.rated_triplets.file": str(
                        folder_of_all / "rated.csv"
                    ),
                    "evaluation.best_metric": "rated/precision",
                },
            )
            workdir = folder_of_all / f"run {name}"
            loop.train(config, workdir)
        found.append((workdir, events))
    return found, splits, copied


def watch(patch, events):
    """Notes which split is embedded or measured, and when training is over."""
    for name in ("embed", "measure"):
        original = getattr(split_lib.SplitEvaluation, name)

        def noted(self, *args, original=original, **kwargs):
            events.append(self.name)
            return original(self, *args, **kwargs)

        patch.setattr(split_lib.SplitEvaluation, name, noted)
    run_loop = loop.run_loop

    def trained(*args):
        run_loop(*args)
        events.append("trained")

    patch.setattr(loop, "run_loop", trained)


def read_results(workdir):
    return json.loads((workdir / "results.json").read_text())


def test_the_test_split_is_not_measured_before_training_is_over(runs):
    for _, events in runs[0]:
        over = events.index("trained")
        assert set(events[:over]) == {"validation"}
        assert events[:over].count("validation") == 2 * 4
        assert set(events[over + 1 :]) == {"validation", "test"}


def test_other_test_images_choose_the_same_model(runs):
    (one, _), (two, _) = runs[0]
    told, again = read_results(one), read_results(two)
    assert told["validation"] == again["validation"]
    assert told["test"] != again["test"]
    timed = ("images_per_second", "stall_share", "time")
    metrics = [
        [
            {k: v for k, v in entry.items() if not k.endswith(timed)}
            for entry in metrics_writer.read_metrics(workdir)
        ]
        for workdir in (one, two)
    ]
    assert metrics[0] == metrics[1]
    precisions = {x.get("validation/rated/precision") for x in metrics[0]} - {None}
    assert len(precisions) > 1
    best = told["validation"]["rated"]["precision"]["model"]
    assert best == max(precisions)
    page = (one / "report" / "index.html").read_text("utf-8")
    assert "the best on validation by rated/precision" in page


def test_what_people_rated_is_in_the_results_and_the_report(runs):
    workdir = runs[0][0][0]
    results = read_results(workdir)
    for split in ("validation", "test"):
        rated = results[split]["rated"]
        assert rated["num_triplets"]["model"] == 30
        assert rated["precision"].keys() == {"model", "untrained", "pixels"}
        assert rated["precision"] != results[split]["triplets"]["precision"]
        assert {"score_at_30", "score_at_30_share"} <= rated.keys()
    page = (workdir / "report" / "index.html").read_text("utf-8")
    said = (
        "30 of 91 triplets, 60 contain images of other splits, 1 contain images that "
        "are no records (1 images, e.g. &#39;gone.png&#39; (row 91))"
    )
    assert page.count(said) == 2
    assert "rated precision" in page


def test_copies_of_training_images_are_in_the_report(runs):
    found, splits, (original, copy) = runs
    workdir = found[0][0]
    told = json.loads((workdir / "leakage.json").read_text())["splits"]
    assert [copy, original, 0.0] in told["test"]["copies"]
    assert told["test"]["num_images"] == len(splits["test"])
    assert told["test"]["seen_classes"] == []
    page = (workdir / "report" / "index.html").read_text("utf-8")
    assert f"&#39;{copy}&#39; of &#39;{original}&#39;" in page
    assert "Seen in training" in page


class _Unread:
    def batches(self, *_):
        raise AssertionError("Images were read again.")


def test_what_was_found_is_not_looked_for_again_but_warned_of(
    runs, tmp_path, warnings_logged
):
    (workdir, _), splits, (_, copy) = runs[0][0], *runs[1:]
    shutil.copy(workdir / "leakage.json", tmp_path)
    parts = types.SimpleNamespace(
        workdir=tmp_path,
        records=splits,
        readers=dict.fromkeys(splits, _Unread()),
        config=create_config(""),
    )
    found = final_report.find_leakage(parts)
    assert copy in [pair[0] for pair in found["test"].copies]
    assert any(text.startswith("The test split shares") for text in warnings_logged)
    parts.config.evaluation.max_compared = 95
    assert final_report.find_leakage(parts)["test"].copies is None
    parts.config.evaluation.max_compared = 97
    with pytest.raises(AssertionError, match="read again"):
        final_report.find_leakage(parts)
