import dataclasses
import json

import numpy as np
import pytest

from deeprank_jax import checksums, similarities
from deeprank_jax.errors import ArtifactError, WriteError
from deeprank_jax.similarities.stored import (
    StoredSimilarity,
    load_similarity,
    save_similarity,
)

OPTIONS = {
    "linear": {"pair_steps": 3, "hard_steps": 0},
    "bilinear": {"steps": 2, "batch_size": 10},
}


def create_stored(kind="linear", dim=4):
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(20, dim)), np.arange(20) % 4
    similarity = similarities.create_learned(kind, OPTIONS[kind])
    metrics = similarities.train(similarity, rows, labels, seed=5)
    return StoredSimilarity(
        similarity=similarity,
        kind=kind,
        options=OPTIONS[kind],
        model="abc123",
        dim=dim,
        seed=5,
        metrics=metrics,
    )


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_file_gives_back_the_similarity(kind, tmp_path):
    stored, path = create_stored(kind), tmp_path / "new" / "similarity.npz"
    save_similarity(path, stored)
    loaded = load_similarity(path)
    rows = np.random.default_rng(1).normal(size=(9, 4))
    scores = loaded.similarity(rows, rows[::-1])
    np.testing.assert_array_equal(scores, stored.similarity(rows, rows[::-1]))
    # All options are written, so that another default later changes nothing.
    assert loaded.options == {
        **similarities.SIMILARITIES.options(kind),
        **OPTIONS[kind],
    }
    for name in ("kind", "model", "dim", "seed", "metrics"):
        assert getattr(loaded, name) == getattr(stored, name)
    assert [x.name for x in path.parent.iterdir()] == ["similarity.npz"]


def test_another_model_is_refused():
    stored = create_stored()
    stored.check_model("x.npz", "abc123", 4)
    for fingerprint, dim in (("other", 4), ("abc123", 5)):
        with pytest.raises(ArtifactError) as error:
            stored.check_model("x.npz", fingerprint, dim)
        assert str(error.value) == (
            "x.npz was trained on 4 numbers of the model abc123, and these embeddings "
            f"are {dim} numbers of {fingerprint}: use that model, or train a "
            "similarity on this one's embeddings."
        )


def rewrite(path, change):
    with np.load(path) as file:
        arrays = dict(file)
    change(arrays)
    np.savez(path, **arrays)


def flip_about(arrays):
    text = arrays["about"].tobytes().replace(b'"seed": 5', b'"seed": 6')
    assert text != arrays["about"].tobytes()
    arrays["about"] = np.frombuffer(text, np.uint8)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: x["weights"].__setitem__(0, 7), "weights has changed since it was"),
        (lambda x: x.update(more=np.zeros(2)), r"it holds \['more', 'weights'\], not"),
        (lambda x: x.pop("weights"), r"it holds \[\], not \['weights'\]"),
        (lambda x: x.pop("about"), "it has no 'about'"),
        (flip_about, "it has changed since it was written"),
    ],
)
def test_a_changed_file_is_refused(tmp_path, change, reason):
    path = tmp_path / "x.npz"
    save_similarity(path, create_stored())
    rewrite(path, change)
    with pytest.raises(
        ArtifactError, match=rf"not a trained .*\({reason}.*train it aga"
    ):
        load_similarity(path)


def test_a_flipped_bit_anywhere_is_noticed(tmp_path):
    path = tmp_path / "x.npz"
    save_similarity(path, create_stored())
    content = path.read_bytes()
    num_loaded = 0
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 4
        path.write_bytes(changed)
        try:
            loaded = load_similarity(path)
        except ArtifactError:
            continue
        # Dates of the archive, for example, are nobody's.
        num_loaded += 1
        assert dataclasses.asdict(loaded)["metrics"] == create_stored().metrics
    assert num_loaded < len(content) / 7 / 2


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "x.npz"
    with pytest.raises(
        ArtifactError, match=r"x.npz: there is no such file; give a sim"
    ):
        load_similarity(path)
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="not a trained similarity, or damaged"):
        load_similarity(path)


def test_an_unknown_kind_is_refused(tmp_path):
    @similarities.register_similarity("mine")
    class Mine(similarities.Linear):
        pass

    path = tmp_path / "x.npz"
    save_similarity(path, dataclasses.replace(create_stored(), kind="mine"))
    del similarities.SIMILARITIES._kinds["mine"]
    with pytest.raises(
        ArtifactError, match=r"'mine' is not known.*plug-in that is not"
    ):
        load_similarity(path)


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.npz"
    path.mkdir()
    with pytest.raises(WriteError, match=r"x.npz cannot be written"):
        save_similarity(path, create_stored())
    assert [x.name for x in tmp_path.iterdir()] == ["x.npz"]


@pytest.mark.parametrize(
    "change",
    [
        {"arrays": ["weights"]},
        {"options": {"pair_steps": 3, "width": 1_000_000}},
        {"dim": 10**6},
        {"dim": "4"},
        {"model": None},
        {"metrics": [1.0]},
    ],
)
def test_a_sealed_file_with_other_entries_is_refused(change, tmp_path):
    path = tmp_path / "similarity.npz"
    save_similarity(path, create_stored())
    with np.load(path) as saved:
        arrays = dict(saved)
    about = checksums.unseal_json(json.loads(arrays["about"].tobytes()))
    if "width" in change.get("options", {}):
        about["kind"] = "simnet"
    text = json.dumps(checksums.seal_json(about | change))
    arrays["about"] = np.frombuffer(text.encode(), np.uint8)
    np.savez(path, **arrays)
    with pytest.raises(ArtifactError, match="is not a trained similarity, or damaged"):
        load_similarity(path)
