"""`--json` of every command: one object on stdout and nothing else."""

import json
import pathlib
import re
import shlex
import shutil

import cv2
from helpers import shrunk
import numpy as np
import pytest

from deeprank_jax.cli import __main__, commands
from deeprank_jax.distributed import backend
from deeprank_jax.experiments import ablation, rejudge
from deeprank_jax.experiments.paper_table import run as paper_table
from deeprank_jax.training import loop, summary

# Commands with `--json` tests in files of their own.
ELSEWHERE = {
    "axioms", "evaluate", "doctor", "configs", "compare-runs", "train-similarity",
}  # fmt: skip
EXPERIMENTS = ["ablation", "rejudge", "paper-table"]


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs a command with `--json` in this process and returns its object."""
    monkeypatch.setattr(backend, "keep_compiled", lambda: None)

    def call(*words):
        capsys.readouterr()
        __main__.main([*map(str, words), "--json"])
        return json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def images(photos):
    return sorted(photos.rglob("*.png"))


def test_export(run, trained, tmp_path):
    result = run("export", f"--workdir={trained}", f"--out={tmp_path / 'model'}")
    assert result["model"] == str(tmp_path / "model")
    assert result["agreement"]["stablehlo"] <= 1e-4


def test_compare(run, exported, images):
    result = run("compare", images[0], images[0], f"--model={exported}")
    assert result["images"] == [str(images[0])] * 2
    assert result["distance"] == 0
    assert result["is_similar"] is True


def test_heat_maps_are_drawn_and_change_no_value(run, exported, images, tmp_path):
    drawn, plain = tmp_path / "drawn.png", tmp_path / "plain.png"
    words = ["compare", *images[:2], f"--model={exported}"]
    assert run(*words, f"--out={drawn}", "--heat_map") == run(*words, f"--out={plain}")
    heights = [len(cv2.imread(str(path))) for path in (plain, drawn)]
    assert heights[1] > heights[0] + 112


def test_heat_maps_of_hits_that_can_be_read(run, exported, photos, tmp_path):
    folder = shutil.copytree(photos, tmp_path / "photos")
    index = f"--index={tmp_path / 'index'}"
    run("index", folder, f"--model={exported}", f"--out={tmp_path / 'index'}")
    query = min(folder.rglob("*.png"))
    page = tmp_path / "hits.html"
    words = ["search", query, index, "--k=3", f"--out={page}"]
    hits = run(*words, "--heat_map")["hits"]
    assert page.read_text().count("<img") == 1 + 3 * 3
    pathlib.Path(hits[1]["path"]).unlink()
    run(*words, "--heat_map")
    assert page.read_text().count("<img") == 1 + 3 + 2 * 2
    assert "where the query is like each" in page.read_text()
    run(*words)
    assert page.read_text().count("<img") == 1 + 3


@pytest.mark.parametrize("command", ["compare", "search"])
def test_heat_maps_need_a_picture(capsys, exported, images, command):
    words = {
        "compare": [*images[:2], f"--model={exported}"],
        "search": [images[0], f"--index={exported}"],
    }
    with pytest.raises(SystemExit):
        __main__.main([command, *map(str, words[command]), "--heat_map"])
    assert "--heat_map draws into the picture of --out" in capsys.readouterr().err


def test_embed(run, exported, photos, tmp_path):
    out = tmp_path / "photos.parquet"
    result = run("embed", photos, f"--model={exported}", f"--out={out}")
    assert result == {
        "out": str(out), "embeddings": 72, "embedding_dim": 8, "unreadable": 0,
        "unlabelled": 0,
    }  # fmt: skip


def test_index_and_search(run, exported, photos, images, tmp_path):
    out = tmp_path / "photos.index"
    result = run("index", photos, f"--model={exported}", f"--out={out}")
    assert result == {
        "index": str(out), "added": 72, "updated": 0, "removed": 0, "images": 72,
        "unreadable": 0, "unlabelled": 0, "kind": "exact",
        "metric": "squared_euclidean",
    }  # fmt: skip
    page = tmp_path / "found.html"
    words = (f"--index={out}", "--k=5", f"--out={page}")
    result = run("search", images[3], *words)
    assert result["left_out"] == str(images[3])
    assert result["is_unfamiliar"] is None  # Validation has too few images to tell.
    assert len(result["hits"]) == 5
    result = run("search", images[3], *words, "--include_query")
    assert page.exists()
    assert [hit["rank"] for hit in result["hits"]] == [1, 2, 3, 4, 5]
    first = result["hits"][0]
    assert first["path"] == str(images[3])
    assert first["label"] == images[3].parent.name
    assert first["distance"] == pytest.approx(0, abs=1e-5)
    assert sum(vote["share"] for vote in result["votes"]) == pytest.approx(1)


def test_rank(run, exported, photos, images):
    words = (photos, f"--model={exported}", f"--image={images[3]}")
    result = run("rank", *words)
    assert (len(result["hits"]), result["left_out"]) == (71, str(images[3]))
    result = run("rank", *words, "--include_query")
    assert len(result["hits"]) == 72
    assert result["hits"][0]["path"] == str(images[3])


def test_duplicates(run, exported, photos, tmp_path):
    some = shutil.copytree(photos, tmp_path / "photos")
    one = some / "class 02" / "1.png"
    shutil.copy(one, some / "class 07" / "copy.png")
    out = tmp_path / "groups.csv"
    words = (f"--model={exported}", "--max_distance=0", f"--out={out}")
    result = run("duplicates", some, *words)
    assert (result["images"], result["copies"], result["max_distance"]) == (73, 1, 0)
    (group,) = result["groups"]
    assert {image["path"] for image in group} >= {str(one)}
    assert [image["keep"] for image in group] == [True, False]
    assert [image["distance"] for image in group] == [0, 0]
    assert out.exists()


def test_label_errors(run, exported, photos, tmp_path):
    some = shutil.copytree(photos, tmp_path / "photos")
    moved = some / "class 07" / "moved.png"
    shutil.move(some / "class 02" / "1.png", moved)
    (some / "alone").mkdir()
    shutil.move(some / "class 03" / "0.png", some / "alone" / "0.png")
    shutil.copy(some / "class 05" / "0.png", some / "0.png")
    result = run("label-errors", some, f"--model={exported}")
    assert (result["images"], result["unlabelled"], result["alone"]) == (72, 1, 1)
    first = result["label_errors"][0]
    assert (first["path"], first["label"]) == (str(moved), "class 07")
    assert first["nearest_label"] == "class 02"
    assert pathlib.Path(first["nearest_path"]).parent == some / "class 02"
    assert pathlib.Path(first["same_path"]).parent == some / "class 07"
    margins = [image["margin"] for image in result["label_errors"]]
    assert margins == sorted(margins, reverse=True)
    assert margins[-1] > 0


def test_tile_map(run, exported, tmp_path):
    path = tmp_path / "large.png"
    rng = np.random.default_rng(0)
    cv2.imwrite(str(path), rng.integers(0, 256, (80, 120, 3)).astype(np.uint8))
    out = tmp_path / "map.png"
    words = (path, f"--model={exported}", "--at=50,30", f"--out={out}")
    result = run("tile-map", *words, "--stride=8", "--num=3")
    assert (result["at"], result["tile"], result["level"]) == ([50, 30], 16, 0)
    assert result["lefts"] == list(range(0, 105, 8))
    assert np.shape(result["cosines"]) == (len(result["tops"]), len(result["lefts"]))
    assert len(result["most_similar"]) == 3
    best = result["most_similar"][0]
    row = result["tops"].index(best["at"][1] - 8)
    column = result["lefts"].index(best["at"][0] - 8)
    assert best["cosine"] == result["cosines"][row][column]
    assert cv2.imread(str(out)).shape[1] > 500


def test_between(run, exported, photos):
    words = (photos, f"--model={exported}", "--label=class 04")
    result = run("between", *words, "--num=3")
    assert result["label"] == "class 04"
    arcs = result["between"]
    assert 1 <= len(arcs) <= 3
    assert [arc["cosine"] for arc in arcs] == sorted(
        (arc["cosine"] for arc in arcs), reverse=True
    )
    for arc in arcs:
        assert "class 04" not in arc["ends"]
        assert arc["end_cosines"][0] == max(arc["end_cosines"])
        assert result["nearest_cosine"] >= arc["end_cosines"][0] - 1e-9
        # Two sides of a triangle on the sphere are longer than the third.
        assert sum(arc["end_degrees"]) >= arc["arc_degrees"] - 1e-6
        degrees = np.degrees(np.arccos(arc["cosine"]))
        assert arc["off_arc_degrees"] == pytest.approx(degrees)
    ends = ",".join(arcs[-1]["ends"][::-1])
    (arc,) = run("between", *words, f"--ends={ends}")["between"]
    assert arc["ends"] == arcs[-1]["ends"]
    assert arc["cosine"] == pytest.approx(arcs[-1]["cosine"])


def test_clusters(run, exported, photos):
    result = run("clusters", photos, f"--model={exported}", "--num=12")
    assert len(result["groups"]) == 12
    assert sum(map(len, result["groups"])) == result["images"] == 72


def test_prepare(run, photos):
    result = run("prepare", "--config=folder", f"--config.data.dir={photos}")
    assert sum(split["images"] for split in result.values()) == 72
    assert set(result["train"]["labels"]) == {"level_1"}


def test_triplets(run, photos, tmp_path):
    out = tmp_path / "triplets.csv"
    config = ("--config=folder", f"--config.data.dir={photos}", "--config.batch_size=8")
    result = run("triplets", *config, f"--out={out}", "--num=20")
    assert result == {"out": str(out), "triplets": 20}
    assert len(out.read_text().splitlines()) == 21


def test_pairs(run, photos, tmp_path):
    out = tmp_path / "pairs.csv"
    words = (f"--config.data.dir={photos}", f"--out={out}", "--num=20", "--split=train")
    result = run("pairs", "--config=folder", *words)
    assert result == {"out": str(out), "pairs": 20, "similar": 10}
    assert len(out.read_text().splitlines()) == 21


def test_golden_feature(run, photos, tmp_path):
    out = tmp_path / "ratings.csv"
    config = ("--config=folder", f"--config.data.dir={photos}")
    words = (f"--simulate={out}", "--num_simulated=900")
    result = run("golden-feature", *config, *words)
    assert result == {"out": str(out), "triplets": 900}
    golden = tmp_path / "golden.parquet"
    words = ("--features=pixels", "--image_size=16", f"--out={golden}")
    result = run("golden-feature", *config, f"--triplets={out}", *words)
    assert result["out"] == str(golden)
    assert list(result["weights"]) == ["pixels"]


def test_train(run, monkeypatch, tmp_path):
    report = tmp_path / "run" / "report" / "index.html"
    configs, command_lines = [], []

    def train(config, workdir, *, command):
        command_lines.append(shlex.split(command))
        configs.append(config)
        print("training prints")
        return report

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(summary, "describe_end", lambda workdir: "")
    result = run("train", f"--workdir={tmp_path / 'run'}", *shrunk.flags())
    assert result == {
        "workdir": str(tmp_path / "run"),
        "results": str(tmp_path / "run" / "results.json"),
        "report": str(report),
    }
    assert configs[0].data.source.name == "emoji"
    assert configs[0].num_steps == shrunk.VALUES["num_steps"]
    # The report shows a command line that is whole.
    words = ["deeprank", "train", f"--workdir={tmp_path / 'run'}", *shrunk.flags()]
    assert command_lines[0] == [*words, "--json", "--config=emoji"]
    run("train", "--config", "folder", "--config.data.dir=my photos")
    words = ["deeprank", "train", "--config", "folder", "--config.data.dir=my photos"]
    assert command_lines[1] == [*words, "--json", "--workdir=runs/folder"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments(run, monkeypatch, tmp_path, name):
    calls = []

    def experiment(path, *, out, command, overrides, **options):
        calls.append((path.name, command, overrides))
        file = out / f"{path.stem}.json" if name == "paper-table" else out
        file.write_text('{"test": 1}')
        return "the table"

    monkeypatch.setattr(ablation, "run_ablation", experiment)
    monkeypatch.setattr(rejudge, "rejudge", experiment)
    monkeypatch.setattr(paper_table, "run_paper_table", experiment)
    out = tmp_path if name == "paper-table" else tmp_path / "x.json"
    words = ("--config=ablation_sampling", "--config.seed", 3)
    assert run(name, *words, f"--out={out}") == {"test": 1}
    command = f"deeprank {name} --config=ablation_sampling --config.seed 3"
    assert calls == [("ablation_sampling.py", command, ["seed=3"])]


def test_no_command_is_left_out():
    called = re.findall(r'run\("([a-z-]+)"', pathlib.Path(__file__).read_text())
    assert {*called, *EXPERIMENTS} | ELSEWHERE >= set(commands.list_commands())
