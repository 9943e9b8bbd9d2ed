"""The public functions of `deeprank_jax` on a real exported model."""

import dataclasses
import pathlib
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

import deeprank_jax
from deeprank_jax import errors
from deeprank_jax.data.decode import BadImageError
from deeprank_jax.inference.index import index_images


@pytest.fixture(scope="module")
def model(exported):
    return deeprank_jax.load(exported)


@pytest.fixture(scope="module")
def paths(photos):
    return sorted(map(str, photos.rglob("*.png")))


@pytest.fixture(scope="module")
def embeddings(model, paths):
    return model.embed(paths)


def squares_to(embeddings, row):
    return np.sum((embeddings - embeddings[row]) ** 2, axis=1)


def test_importing_the_package_imports_no_jax():
    code = (
        "import sys, deeprank_jax; "
        "print([m for m in ('jax', 'numpy', 'cv2') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_only_public_names_are_listed():
    names = dir(deeprank_jax)
    assert names == sorted(deeprank_jax.__all__)
    assert {"load", "Index", "Model", "Hit"} <= set(names)
    for name in names:
        assert getattr(deeprank_jax, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = deeprank_jax.nonsense


class Series:
    """A column of a table, as pandas has it: neither a list nor an array."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype=object)


@pytest.mark.parametrize(
    "convert",
    [list, tuple, np.array, Series, iter, lambda x: list(map(pathlib.Path, x))],
    ids=["list", "tuple", "array", "series", "iterator", "pathlib"],
)
def test_any_sequence_of_paths_is_embedded(model, paths, embeddings, convert):
    np.testing.assert_allclose(
        model.embed(convert(paths[:20])), embeddings[:20], atol=1e-6
    )


def test_embed_reports_progress(model, paths):
    reports = []
    model.embed(paths, progress=lambda *report: reports.append(report))
    assert reports[0] == (0, 72, "embed")
    assert reports[-1] == (72, 72, "embed")
    assert len(reports) == 3


def test_a_folder_is_embedded(model, photos, paths, embeddings, tmp_path):
    folder = shutil.copytree(photos, tmp_path / "photos")
    (folder / "class 01" / "bad.png").write_bytes(b"no image")
    reports = []
    result = model.embed_folder(folder, progress=lambda *x: reports.append(x))
    assert result.paths == tuple(str(p) for p in sorted(folder.rglob("[0-9].png")))
    assert result.labels == tuple(pathlib.Path(p).parent.name for p in result.paths)
    assert result.unreadable == (str(folder / "class 01" / "bad.png"),)
    np.testing.assert_allclose(result.embeddings, embeddings, atol=1e-6)
    assert reports[-1] == (73, 73, "embed")
    assert repr(result) == "<EmbeddedImages: 72 images, 8 dimensions, 1 unreadable>"


def test_no_bar_is_drawn_where_progress_is_received(model, photos, capfd):
    model.embed_folder(photos, progress=lambda *report: None)
    assert "embed" not in capfd.readouterr().err


def test_a_search_in_a_folder_is_exact(model, photos, paths, embeddings):
    result = model.search(paths[9], photos, k=5, include_query=True)
    distances = squares_to(embeddings, 9)
    order = np.argsort(distances, kind="stable")[:5]
    assert [hit.path for hit in result] == [paths[i] for i in order]
    np.testing.assert_allclose(
        [x.distance for x in result], distances[order], atol=1e-5
    )
    assert result[0].path == paths[9]
    assert result[0].label == "class 01"
    assert result.threshold == model.cluster_distance
    verdicts = [hit.distance <= model.cluster_distance for hit in result]
    assert [hit.is_similar for hit in result] == verdicts
    assert sum(share for _, share in result.votes) == pytest.approx(1.0)
    assert len(model.search(paths[9], photos, k=None)) == 71
    verdicts = {hit.is_similar for hit in model.search(paths[9], photos, k=None)}
    assert verdicts == {True, False}


def test_a_search_takes_paths(model, paths):
    result = model.search(paths[3], np.array(paths[2:5]), k=2)
    assert {hit.path for hit in result} == {paths[2], paths[4]}
    assert {hit.label for hit in result} == {""}
    with pytest.raises(errors.DataError, match=r"images\[1\] is a NoneType; give a pa"):
        model.search(paths[3], [paths[0], None])
    with pytest.raises(errors.DataError, match="at least 1, got 0"):
        model.search(paths[3], paths, k=0)


def test_the_query_is_neither_its_own_hit_nor_a_voter(
    model, photos, paths, index, tmp_path
):
    link = tmp_path / "link.png"
    link.symlink_to(paths[9])
    with_it = model.search(paths[9], photos, k=6, include_query=True)
    assert with_it.left_out is None
    assert with_it[0].path == paths[9]
    for image in (paths[9], pathlib.Path(paths[9]), str(link)):
        for search in (lambda *x: model.search(x[0], photos, x[1]), index.search):
            result = search(image, 5)
            assert result.left_out == paths[9]
            assert [hit.path for hit in result] == [x.path for x in with_it[1:]]
            weights = {}
            for hit in result:
                distance = hit.distance - result[0].distance
                weight = np.exp(-distance / model.cluster_distance)
                weights[hit.label] = weights.get(hit.label, 0) + weight
            shares = {k: x / sum(weights.values()) for k, x in weights.items()}
            assert dict(result.votes) == pytest.approx(shares, rel=1e-3)
    # Pixels have no name, and a copy is another file.
    content = pathlib.Path(paths[9]).read_bytes()
    assert index.search(content, 5)[0].path == paths[9]
    copy = shutil.copy(paths[9], tmp_path / "copy.png")
    assert index.search(copy, 5)[0].path == paths[9]
    alone = model.search(paths[9], [paths[9]])
    assert (len(alone), alone.votes, alone.left_out) == (0, (), paths[9])


def test_of_copies_the_largest_is_to_keep(model, photos, tmp_path):
    original = Image.open(sorted(photos.rglob("*.png"))[0])
    size = original.size
    sizes = {"a.png": size, "b.png": (2 * size[0], 2 * size[1]), "c.png": size}
    for name, new_size in sizes.items():
        original.resize(new_size, Image.Resampling.NEAREST).save(tmp_path / name)
    original.save(tmp_path / "c.png", compress_level=0)  # Larger than a.png.
    (group,) = model.duplicates(tmp_path, max_distance=1e-3)
    names = [pathlib.Path(path).name for path in group.paths]
    assert names[0] == "b.png"
    assert group.distances[0] == 0
    rows = model.embed(group.paths)
    wanted = np.sum((rows - rows[0]) ** 2, axis=1)
    np.testing.assert_allclose(group.distances, wanted, atol=1e-6)
    (tmp_path / "b.png").unlink()
    (group,) = model.duplicates(tmp_path, max_distance=1e-3)
    assert [pathlib.Path(path).name for path in group.paths] == ["c.png", "a.png"]


def test_duplicates_are_groups_of_paths(model, photos, tmp_path):
    folder = shutil.copytree(photos, tmp_path / "photos")
    original = folder / "class 02" / "1.png"
    copy = shutil.copy(original, folder / "class 07" / "copy.png")
    groups = model.duplicates(folder, max_distance=0)
    assert groups.num_images == 73
    assert groups.num_copies == len(groups) == 1
    assert groups[0].paths == (str(original), str(copy))
    assert groups[0].labels == ("class 02", "class 07")
    by_default = model.duplicates(folder)
    assert by_default.max_distance == model.artifact.info["copies"]["distance"]
    assert any(str(copy) in group.paths for group in by_default)


def test_duplicates_are_alike_in_their_details(model, tmp_path):
    """Bars on white are near by embedding and by few pixels; only copies are alike."""
    rng = np.random.default_rng(0)
    for number in range(12):
        image = np.full((120, 120, 3), 255, np.uint8)
        y, x = rng.integers(20, 90, 2)
        image[y : y + 3, x : x + 25] = 0
        Image.fromarray(image).save(tmp_path / f"{number:02d}.png")
    Image.fromarray(image).resize((90, 90)).save(tmp_path / "copy.jpg", quality=60)
    (tmp_path / "link.png").symlink_to(tmp_path / "03.png")
    names = [
        [pathlib.Path(x).name for x in g.paths] for g in model.duplicates(tmp_path)
    ]
    assert names == [["11.png", "copy.jpg"]]
    near = model.duplicates(
        tmp_path, max_distance=model.artifact.info["copies"]["distance"]
    )
    assert near.num_copies > 6


def test_clusters_hold_every_image_once(model, photos, paths):
    groups = model.clusters(photos, num=12)
    assert len(groups) == 12
    assert sorted(path for group in groups for path in group.paths) == paths
    sizes = [len(group) for group in groups]
    assert sizes == sorted(sizes, reverse=True)
    assert model.clusters(photos).max_distance == model.cluster_distance
    with pytest.raises(errors.DataError, match=r"num=99 .*from 1 to 72"):
        model.clusters(photos, num=99)


def test_a_model_describes_itself(model, exported):
    text = repr(model)
    for part in (
        str(exported), "8 dimensions", "16x16 pixels", "task ranking",
        "trained on folder photos",
        f"threshold {model.threshold:.4g}",
    ):  # fmt: skip
        assert part in text


@pytest.fixture
def index(model, photos, tmp_path):
    with deeprank_jax.Index.create(tmp_path / "photos.index", model) as index:
        index.add(photos, progress=lambda *report: None)
    return index


def test_an_index_finds_what_a_search_finds(model, photos, paths, index):
    for labels, hits in ((None, 71), ("class 03", 6), (["class 03", "class 05"], 12)):
        result = index.search(paths[9], k=100, labels=labels)
        assert len(result) == hits
        wanted = [
            hit
            for hit in model.search(paths[9], photos, k=None)
            if labels is None or hit.label in labels
        ]
        assert [hit.path for hit in result] == [hit.path for hit in wanted]
        assert [hit.label for hit in result] == [hit.label for hit in wanted]
        assert [hit.is_similar for hit in result] == [x.is_similar for x in wanted]
        np.testing.assert_allclose(
            [hit.distance for hit in result], [x.distance for x in wanted], atol=1e-5
        )
        assert result.left_out == (paths[9] if labels is None else None)
    assert len(index.search(paths[9], labels="none")) == 0
    with pytest.raises(BadImageError, match=r"gone\.png: cannot be read"):
        index.search("gone.png")
    with pytest.raises(errors.DataError, match="k"):
        index.search(paths[9], k=0)


def test_an_index_is_opened_without_its_model(index, exported, paths):
    again = deeprank_jax.Index.open(index.path)
    assert again.paths() == paths
    assert again.search(paths[0], k=1).left_out == paths[0]
    assert repr(again) == (
        f"<Index {index.path}: 72 images, exact, squared_euclidean, model {exported}>"
    )
    with pytest.raises(errors.UserError, match="open for reading; to add"):
        again.add(paths[:1])


def test_an_index_grows_and_shrinks(index, model, paths, monkeypatch, tmp_path):
    extra = shutil.copy(paths[0], tmp_path / "extra.png")
    monkeypatch.chdir(tmp_path)
    with deeprank_jax.Index.open(index.path, model, writable=True) as writer:
        assert writer.add(["extra.png", "extra.png", paths[3]]) == 1
        assert writer.paths()[-1] == str(extra)
        writer.delete(paths[:70])
        assert len(writer) == 3
        with pytest.raises(errors.UserError, match="This process is writing"):
            deeprank_jax.Index.open(index.path, model, writable=True)
    assert len(deeprank_jax.Index.open(index.path)) == 3


@pytest.fixture
def followed(model, photos, tmp_path):
    """Returns a copy of the images, and a function that brings their index up to date.

    It returns the numbers of images added, updated and removed.
    """
    folder = shutil.copytree(photos, tmp_path / "photos")

    def update(source=folder, index=tmp_path / "followed.index"):
        _, changes = index_images(index, model, source, progress=lambda *report: None)
        return dataclasses.astuple(changes)[:3]

    assert update() == (72, 0, 0)
    assert update() == (0, 0, 0)
    return folder, update


def nearest(folder, image):
    return deeprank_jax.Index.open(folder.parent / "followed.index").search(
        image, k=1, include_query=True
    )


def test_an_index_follows_replaced_images(followed, paths, tmp_path):
    folder, update = followed
    image, other = folder / "class 01" / "2.png", tmp_path / "other.png"
    shutil.copy(image, other)
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(noise).save(image)
    before = nearest(folder, image)[0]
    assert before.distance > 1e-6
    assert update() == (0, 1, 0)
    after = nearest(folder, image)[0]
    assert (after.path, after.distance) == (str(image), pytest.approx(0, abs=1e-9))
    image.touch()
    assert update() == (0, 0, 0)
    image.write_bytes(b"no image")
    assert update() == (0, 0, 1)
    shutil.copy(other, image)
    assert update() == (1, 0, 0)


def test_an_index_follows_labels_and_removals(followed, tmp_path):
    folder, update = followed
    (folder / "class 03").rename(folder / "renamed")
    assert update() == (6, 0, 6)
    (folder / "class 04" / "1.png").unlink()
    assert update() == (0, 0, 1)
    (tmp_path / "list.csv").write_text("path,label\nphotos/class 05/1.png,new\n")
    assert update(tmp_path / "list.csv") == (0, 1, 0)
    index = deeprank_jax.Index.open(tmp_path / "followed.index")
    assert {"renamed", "new", "class 05"} <= index.label_names()
    assert "class 03" not in index.label_names()
    assert len(index) == 71
    # A list without labels takes none away, and need not name all images.
    (tmp_path / "list.txt").write_text("photos/class 05/1.png\n")
    assert update(tmp_path / "list.txt") == (0, 0, 0)


def test_a_file_is_in_an_index_once_however_it_is_named(followed, tmp_path):
    folder, update = followed
    (tmp_path / "link").symlink_to(folder)
    assert update(tmp_path / "link") == (0, 0, 0)
    names = ["link/class 01/1.png", "photos/../photos/class 01/1.png"]
    (tmp_path / "list.txt").write_text("\n".join(names))
    assert update(tmp_path / "list.txt") == (0, 0, 0)


def test_images_without_a_version_are_embedded_again(followed, tmp_path):
    _, update = followed
    versions = tmp_path / "followed.index" / "images.jsonl"
    versions.write_text(versions.read_text()[:-20])
    assert update() == (0, 1, 0)
    versions.unlink()
    assert update() == (0, 72, 0)


def test_links_in_the_folder_of_an_index_are_not_followed(followed, tmp_path):
    _, update = followed
    versions, target = tmp_path / "followed.index" / "images.jsonl", tmp_path / "notes"
    target.write_text("mine")
    versions.unlink()
    versions.symlink_to(target)
    with pytest.raises(errors.UserError, match=r"images\.jsonl cannot be written"):
        update()
    assert target.read_text() == "mine"


def test_verdicts_are_the_same_in_both_metrics(index, model, photos, paths, tmp_path):
    path = tmp_path / "cosine.index"
    with deeprank_jax.Index.create(path, model, metric="cosine") as cosine:
        cosine.add(photos)
    pair = [x.search(paths[0], k=72) for x in (index, cosine)]
    similar = [{hit.path for hit in result if hit.is_similar} for result in pair]
    assert similar[0] == similar[1]
    assert pair[1].threshold == pair[0].threshold / 2
    halves = [hit.distance / 2 for hit in pair[0]]
    np.testing.assert_allclose([hit.distance for hit in pair[1]], halves, atol=1e-5)
    assert 0 < len(similar[0]) < 72


def test_an_existing_index_keeps_its_metric_and_kind(index, model):
    create = deeprank_jax.Index.open_or_create
    for options in (dict(metric="cosine"), dict(kind="hnsw")):
        with pytest.raises(errors.DataError, match=r"exists already with the (metr|k)"):
            create(index.path, model, **options)
    with create(index.path, model, kind="auto") as same:
        assert len(same) == 72


def test_a_missing_folder_leaves_no_index(model, tmp_path):
    with pytest.raises(errors.DataError, match="no such file or folder"):
        index_images(tmp_path / "new.index", model, tmp_path / "gone")
    assert not (tmp_path / "new.index").exists()


def test_another_folder_is_no_index(tmp_path, exported):
    with pytest.raises(errors.ArtifactError, match="is not an index"):
        deeprank_jax.Index.open(tmp_path)
    with pytest.raises(errors.UserError, match="index"):
        deeprank_jax.Index.open(tmp_path, exported)


def test_a_model_and_its_run_are_evaluated(model, trained, photos):
    evaluation = deeprank_jax.evaluate(model, photos)
    assert evaluation.num_images == 72
    by_run = deeprank_jax.evaluate(trained, photos)
    name = ("retrieval", "recall@1")
    values, run_values = (e.results[name[0]][name[1]] for e in (evaluation, by_run))
    assert values["model"] == pytest.approx(run_values["model"])
    assert "untrained" in run_values
    assert "untrained" not in values
    with pytest.raises(errors.ArtifactError, match="there is no such folder"):
        deeprank_jax.evaluate("gone", photos)


@pytest.mark.parametrize("max_distance", [-1.0, float("nan")])
@pytest.mark.parametrize("method", ["duplicates", "clusters"])
def test_a_distance_that_cannot_be_is_refused(model, photos, method, max_distance):
    with pytest.raises(errors.DataError, match=r"max_distance=.* must be at least 0"):
        getattr(model, method)(photos, max_distance=max_distance)
