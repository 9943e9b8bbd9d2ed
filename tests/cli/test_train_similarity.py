"""`train-similarity`, and the commands that use its file: `axioms` and `search`."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from deeprank_jax.cli import __main__
from deeprank_jax.distributed import backend
from deeprank_jax.inference import bulk
from deeprank_jax.inference.model import Model
from deeprank_jax.search.index import VectorIndex
from deeprank_jax.similarities.stored import load_similarity, save_similarity

FEW = [
    f"--option={x}"
    for x in ("width=16", "random_steps=5", "pair_steps=30", "hard_steps=5",
              "hard_pool=100", "batch_size=20", "weight_std=0.3")
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def no_cache():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "keep_compiled", lambda: None)
        yield


def call(*words):
    __main__.main([str(word) for word in words])


@pytest.fixture
def deeprank(capsys):
    def call_and_read(*words, as_json=False):
        capsys.readouterr()
        call(*words, *(["--json"] if as_json else []))
        text = capsys.readouterr().out
        return json.loads(text) if as_json else text

    return call_and_read


@pytest.fixture
def fails():
    """Runs a command that ends with a sentence, and returns that."""

    def call_and_fail(*words):
        with pytest.raises(SystemExit) as error:
            call(*words)
        assert isinstance(error.value.code, str)
        return error.value.code

    return call_and_fail


@pytest.fixture(scope="module")
def simnet(exported, photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("similarity") / "simnet.npz"
    call("train-similarity", photos, f"--model={exported}", "--kind=simnet",
         f"--out={path}", *FEW)  # fmt: skip
    return path


@pytest.fixture(scope="module")
def index(exported, photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / "photos.index"
    call("index", photos, f"--model={exported}", f"--out={path}")
    return path


def test_a_similarity_of_images_is_that_of_their_table(
    simnet, exported, photos, tmp_path, deeprank
):
    table, again = tmp_path / "photos.parquet", tmp_path / "again.npz"
    deeprank("embed", photos, f"--model={exported}", f"--out={table}")
    values = deeprank(
        "train-similarity", table, "--kind=simnet", f"--out={again}", *FEW, as_json=True
    )
    stored = load_similarity(again)
    assert values == {
        "out": str(again), "kind": "simnet", "model": Model(exported).fingerprint,
        "embeddings": 72, "embedding_dim": 8, "metrics": stored.metrics,
        "options": {
            "width": 16, "random_steps": 5, "pair_steps": 30, "hard_steps": 5,
            "hard_pool": 100, "batch_size": 20, "weight_std": 0.3,
        },
    }  # fmt: skip
    assert stored.model == values["model"]
    expected = load_similarity(simnet).similarity.arrays()
    for name, array in stored.similarity.arrays().items():
        np.testing.assert_array_equal(array, expected[name])


def test_it_says_how_training_went(exported, photos, tmp_path, deeprank):
    out = tmp_path / "oasis.npz"
    text = deeprank(
        "train-similarity", photos, f"--model={exported}", "--kind=bilinear",
        f"--out={out}", "--option=steps=3", "--option=symmetric=True",
    )  # fmt: skip
    assert re.fullmatch(
        r"Trained bilinear, OASIS on 72 embeddings: loss_share 0\.\d{4}\.\n"
        rf"Wrote {out}\.\n",
        text,
    )
    weights = load_similarity(out).similarity.arrays()["weights"]
    np.testing.assert_allclose(weights, weights.T)


def test_distractors_need_no_labels(index, exported, photos, tmp_path, deeprank):
    folder, out = tmp_path / "distractors", tmp_path / "distractors.npz"
    folder.mkdir()
    for number, path in enumerate(sorted(photos.rglob("*.png"))[:12]):
        shutil.copy(path, folder / f"{number}.png")
    text = deeprank(
        "train-similarity", folder, f"--model={exported}", "--kind=out_of_domain",
        f"--out={out}",
    )  # fmt: skip
    assert text == (
        "Trained cosine less the resemblance to 12 distractors on 12 embeddings.\n"
        f"Wrote {out}.\n"
    )
    query = min(photos.rglob("*.png"))
    hits = deeprank(
        "search", query, f"--index={index}", f"--rerank={out}", as_json=True
    )["hits"]
    similarity = load_similarity(out).similarity
    model = Model(exported)
    for hit in hits:
        rows = model.embed([query, hit["path"]])
        expected = similarity(rows[:1], rows[1:])[0]
        assert hit["similarity"] == pytest.approx(expected, abs=1e-5)


def test_what_cannot_be_trained_is_refused(exported, photos, tmp_path, fails):
    out = tmp_path / "x.npz"
    words = ["train-similarity", photos, f"--model={exported}", f"--out={out}"]
    for kind, message in (
        (
            "simet",
            "'simet' is not known (did you mean 'simnet'?); choose one of linear",
        ),
        ("angle", "The similarity 'angle' has nothing to train; choose one of"),
    ):
        assert message in fails(*words, f"--kind={kind}")
    message = fails(*words, "--kind=simnet", "--option=width=0")
    assert "similarity.width must be at least 1, got 0" in message
    message = fails("train-similarity", photos, "--kind=linear", f"--out={out}")
    assert "is no table of embeddings, .parquet: give the images' --model" in message
    one = shutil.copytree(photos / "class 00", tmp_path / "one" / "class 00")
    words[1] = one.parent
    assert "All 6 images with a label are of one class" in fails(
        *words, "--kind=linear"
    )
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(map(str, sorted(photos.rglob("*.png"))[:20])))
    words[1] = listed
    assert "None of the 20 images has a label" in fails(*words, "--kind=linear")
    assert not out.exists()


def test_labels_are_looked_at_before_images_are_embedded(
    exported, photos, tmp_path, fails, monkeypatch
):
    monkeypatch.setattr(bulk, "embed_records", lambda *args: pytest.fail("embedded"))
    folder = shutil.copytree(photos / "class 00", tmp_path / "photos" / "class 00")
    words = (f"--model={exported}", "--kind=linear", f"--out={tmp_path / 'x.npz'}")
    message = fails("train-similarity", folder.parent, *words)
    assert "All 6 images with a label are of one class" in message


def test_axioms(simnet, exported, photos, tmp_path, deeprank):
    page = tmp_path / "axioms.html"
    words = ["axioms", photos, f"--model={exported}", f"--similarity={simnet}"]
    values = deeprank(*words, "--num=200", f"--out={page}", as_json=True)
    assert values["images"] == 72
    names = [
        "squared Euclidean distance", "Euclidean distance", "cosine distance", "angle",
        f"SimNet of width 16 ({simnet})",
    ]  # fmt: skip
    assert [*values["axioms"]] == names
    for metric in ("Euclidean distance", "angle"):
        axioms = values["axioms"][metric]
        assert axioms["near_triangle_share"] == axioms["self_share"] == 0
    assert values["axioms"]["cosine distance"]["near_triangle_share"] > 0
    learned = values["axioms"][names[-1]]
    assert learned["self_share"] > 0.5
    assert learned["asymmetric_share"] == 0
    text = page.read_text("utf-8")
    assert all(name in text for name in names)
    assert "72 of" in text
    rows = deeprank(*words, "--num=200").splitlines()
    assert len(rows) == 1 + len(names)
    assert [row.split("  ")[0] for row in rows[1:]] == names


def test_three_images_are_needed_for_axioms(exported, photos, tmp_path, fails):
    two = tmp_path / "two"
    two.mkdir()
    for path in sorted(photos.rglob("*.png"))[:2]:
        shutil.copy(path, two)
    message = fails("axioms", two, f"--model={exported}")
    assert "needs three images, and there are 2" in message


def test_a_search_is_put_in_order(simnet, index, photos, exported, tmp_path, deeprank):
    query = sorted(photos.rglob("*.png"))[20]
    words = ["search", query, f"--index={index}", f"--rerank={simnet}"]
    page = tmp_path / "found.html"
    values = deeprank(
        *words, "--num_reranked=30", "--k=5", f"--out={page}", as_json=True
    )
    hits = values["hits"]
    assert [hit["rank"] for hit in hits] == [1, 2, 3, 4, 5]
    # By hand: the nearest 30, the query among them, by the similarity.
    with VectorIndex.open(index) as vectors:
        embedding = Model(exported).embed([query])
        nearest = vectors.search(embedding, 30)
        paths = nearest.ids[0]
        rows = vectors.vectors(paths)
    scores = load_similarity(simnet).similarity(embedding.repeat(30, axis=0), rows)
    order = [i for i in np.argsort(-scores) if paths[i] != str(query)][:5]
    assert [hit["path"] for hit in hits] == [paths[i] for i in order]
    assert [hit["similarity"] for hit in hits] == pytest.approx(scores[order].tolist())
    distances = nearest.distances[0][order].tolist()
    assert [hit["distance"] for hit in hits] == pytest.approx(distances)
    assert sorted(distances) != distances
    assert values["left_out"] == str(query)
    assert "most similar by --rerank" in page.read_text("utf-8")
    text = deeprank(*words, "--num_reranked=30", "--k=5")
    assert text.splitlines()[0].split() == [
        "rank", "similarity", "distance", "label", "path",
    ]  # fmt: skip
    assert (
        f"Re-ranked: the nearest 30 by {simnet} (SimNet of width 16); verdicts and "
        "votes are by distance." in text
    )
    # More hits than are asked to be put in order, and the query as one of them.
    everything = deeprank(
        *words, "--num_reranked=2", "--k=99", "--include_query", as_json=True
    )
    assert len(everything["hits"]) == 72


def test_a_similarity_of_another_model_is_refused(
    simnet, index, exported, photos, tmp_path, fails
):
    other = tmp_path / "other.npz"
    save_similarity(other, dataclasses.replace(load_similarity(simnet), model="x"))
    query = sorted(photos.rglob("*.png"))[0]
    reason = f"{other} was trained on 8 numbers of the model x, and these embeddings"
    assert reason in fails("search", query, f"--index={index}", f"--rerank={other}")
    words = ["axioms", photos, f"--model={exported}", f"--similarity={other}"]
    assert reason in fails(*words)
    missing = tmp_path / "missing.npz"
    message = fails("search", query, f"--index={index}", f"--rerank={missing}")
    assert "missing.npz: there is no such file; give a similarity" in message
