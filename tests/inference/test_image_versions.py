"""An index follows its images, whatever becomes of their files and of the process."""

import dataclasses
import errno
import json
import os
import pathlib
import shutil
from unittest import mock

import pytest

import deeprank_jax
from deeprank_jax import errors, files
from deeprank_jax.cli import sheets
from deeprank_jax.inference import image_versions, sources
from deeprank_jax.inference.image_versions import Version, Versions
from deeprank_jax.inference.index import index_images
from deeprank_jax.search.index import VectorIndex


@pytest.fixture(scope="module")
def model(exported):
    return deeprank_jax.load(exported)


@pytest.fixture
def disk(photos, tmp_path):
    """Returns a folder with six images, which can be moved away."""
    return shutil.copytree(photos / "class 01", tmp_path / "disk")


@pytest.fixture
def update(model, tmp_path):
    """Returns a function to the numbers of images added, updated and removed."""

    def update(source, index="an.index"):
        _, changes = index_images(
            tmp_path / index, model, source, progress=lambda *report: None
        )
        return dataclasses.astuple(changes)[:3]

    return update


@pytest.fixture
def listed(disk, tmp_path):
    """Returns a list of the images."""
    source = tmp_path / "list.txt"
    source.write_text("\n".join(str(path) for path in sorted(disk.iterdir())))
    return source


@pytest.fixture
def linked(disk, tmp_path):
    """Returns a folder with a link to each image."""
    source = tmp_path / "links"
    source.mkdir()
    for path in disk.iterdir():
        (source / path.name).symlink_to(path)
    return source


@pytest.fixture
def embedded(tmp_path):
    """Returns a function to the paths in the index."""
    return lambda: deeprank_jax.Index.open(tmp_path / "an.index").paths()


@pytest.mark.parametrize("kind", ["listed", "linked"])
def test_images_on_a_disk_that_is_away_stay(
    kind, request, disk, update, embedded, tmp_path, warnings_logged
):
    source = request.getfixturevalue(kind)
    assert update(source) == (6, 0, 0)
    before = embedded()
    disk.rename(tmp_path / "away")
    with pytest.raises(errors.DataError, match="none of 6 images can be read"):
        update(source)
    assert embedded() == before
    assert [text for text in warnings_logged if "cannot be reached" in text] == [
        f"{source}: 6 images of the index cannot be reached, the first is "
        f"{before[0]}; they stay in the index as they were."
    ]
    (tmp_path / "away").rename(disk)
    assert update(source) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["listed", "linked"])
def test_some_images_that_cannot_be_reached_stay(
    kind, request, disk, update, embedded, warnings_logged
):
    source = request.getfixturevalue(kind)
    update(source)
    before = embedded()
    (disk / "1.png").unlink()
    (disk / "2.png").unlink()
    (disk / "2.png").symlink_to("2.png")
    assert update(source) == (0, 0, 0)
    assert embedded() == before
    assert "2 images of the index cannot be reached" in warnings_logged[-1]
    (disk / "3.png").write_bytes(b"no image")
    assert update(source) == (0, 0, 1)
    assert len(embedded()) == 5


@pytest.mark.parametrize("has_version", [True, False])
def test_an_image_whose_disk_fails_stays(
    has_version, listed, disk, update, embedded, tmp_path, monkeypatch, warnings_logged
):
    update(listed)
    before = embedded()
    (disk / "1.png").write_bytes(b"no image")
    if not has_version:
        (tmp_path / "an.index" / "images.jsonl").unlink()
    read_bytes = files.read_bytes

    def fail(path, limit):
        if str(path).endswith("1.png"):
            raise OSError(errno.EIO, "Input/output error")
        return read_bytes(path, limit)

    with monkeypatch.context() as patch:
        patch.setattr(files, "read_bytes", fail)
        update(listed)
    assert sorted(embedded()) == before
    assert "1 images of the index cannot be reached" in warnings_logged[-1]
    assert update(listed) == (0, 0, 1)


def test_images_of_a_folder_behind_a_broken_link_stay(
    disk, update, embedded, photos, tmp_path
):
    source = shutil.copytree(photos / "class 02", tmp_path / "photos")
    (source / "linked").symlink_to(disk)
    assert update(source) == (12, 0, 0)
    disk.rename(tmp_path / "away")
    assert update(source) == (0, 0, 0)
    assert len(embedded()) == 12
    (source / "linked").unlink()
    assert update(source) == (0, 0, 6)


def test_nothing_is_removed_when_no_image_can_be_read(disk, update, embedded, tmp_path):
    update(disk)
    (disk / "1.png").unlink()
    for path in disk.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(errors.DataError, match="none of 5 images can be read"):
        update(disk)
    assert len(embedded()) == 6


POINTS = [
    (owner, name, after)
    for owner, name in (
        (VectorIndex, "delete"),
        (Versions, "add"),
        (VectorIndex, "add"),
    )
    for after in (False, True)
]


@pytest.mark.parametrize(("owner", "name", "after"), POINTS)
@pytest.mark.parametrize("is_undone", [False, True])
def test_an_index_is_right_after_a_kill(
    owner, name, after, is_undone, disk, update, tmp_path, monkeypatch
):
    update(disk)
    image = disk / "1.png"
    before = image.read_bytes()
    shutil.copy(disk / "2.png", image)
    call = getattr(owner, name)

    def stop(*arguments):
        if after:
            call(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stop)
        with pytest.raises(KeyboardInterrupt):
            update(disk)
    if is_undone:
        image.write_bytes(before)
    update(disk)
    update(disk, "fresh.index")
    hits = [
        deeprank_jax.Index.open(tmp_path / index).search(image, k=9)
        for index in ("an.index", "fresh.index")
    ]
    rows = [sorted((x.path, x.label, round(x.distance, 5)) for x in y) for y in hits]
    assert rows[0] == rows[1]
    assert update(disk) == (0, 0, 0)


@pytest.mark.parametrize("after_kill", [False, True])
def test_a_list_without_labels_takes_none_away(
    after_kill, disk, update, tmp_path, monkeypatch
):
    paths = sorted(map(str, disk.iterdir()))
    labelled, plain = tmp_path / "list.csv", tmp_path / "list.txt"
    labelled.write_text("\n".join(["path,label", *(f"{x},robin" for x in paths)]))
    plain.write_text("\n".join(paths))
    update(labelled)
    if after_kill:
        for path in paths:
            shutil.copy(disk / "1.png", f"{path}.new")
            shutil.move(f"{path}.new", path)
        with monkeypatch.context() as patch:
            patch.setattr(VectorIndex, "add", mock.Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                update(plain)
    else:
        (tmp_path / "an.index" / "images.jsonl").unlink()
    update(plain)
    index = deeprank_jax.Index.open(tmp_path / "an.index")
    hits = index.search(paths[0], k=9, include_query=True)
    assert [hit.label for hit in hits] == ["robin"] * 6


@pytest.mark.parametrize("is_list", [False, True])
def test_pictures_behind_links_are_shown(is_list, update, linked, tmp_path):
    source = linked
    if is_list:
        source = tmp_path / "lists" / "list.txt"
        source.parent.mkdir()
        source.write_text("\n".join(str(path) for path in linked.iterdir()))
    update(source)
    index = deeprank_jax.Index.open(tmp_path / "an.index")
    read = index.create_reader()
    assert [read(path) for path in index.paths()] == index.paths()
    outside = tmp_path / "secret.png"
    with pytest.raises(errors.ArtifactError, match="is not below the folders"):
        read(str(outside))


def test_pictures_that_cannot_be_shown_are_named_once(
    model, disk, tmp_path, warnings_logged
):
    paths = sorted(map(str, disk.iterdir()))

    def read(path):
        if path in paths[:2]:
            raise errors.ArtifactError(f"{path} is not below the folders.")
        return path

    result = model.search(paths[3], paths, k=None)
    out = str(tmp_path / "sheet.png")
    sheets.write_hits(out, "Hits", paths[3], result, heading="hits", read=read)
    first = next(hit.path for hit in result if hit.path in paths[:2])
    assert [text for text in warnings_logged if "grey" in text] == [
        f"{out}: 2 images cannot be shown and are grey, the first is {first}: {first} "
        "is not below the folders."
    ]


@pytest.mark.slow
def test_the_file_of_versions_does_not_grow_for_ever(tmp_path):
    def version(number):
        return Version(stamp=f"{number} 0", digest="d", label="é")

    path = tmp_path / "images.jsonl"
    for number in range(300):
        Versions(tmp_path).add((name, version(number)) for name in "abcd")
    Versions(tmp_path).compact(["a"] * 700)
    assert path.stat().st_size > 10_000
    Versions(tmp_path).compact(["b", "a", "new"])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [["b", "299 0", "d", "é"], ["a", "299 0", "d", "é"]]
    assert Versions(tmp_path).label("a") == "é"


def test_a_run_that_grows_the_file_of_versions_shortens_it(
    disk, update, tmp_path, monkeypatch
):
    monkeypatch.setattr(image_versions, "_MAX_SPARE_LINES", 12)
    update(disk)
    path = tmp_path / "an.index" / "images.jsonl"
    for _ in range(3):
        for image in disk.iterdir():
            image.write_bytes(image.read_bytes() + b"\0")
        assert update(disk) == (0, 6, 0)
        assert 6 <= len([x for x in path.read_text().splitlines() if x]) <= 12
    assert update(disk) == (0, 0, 0)


def test_a_long_file_of_versions_is_read_by_its_lines(tmp_path, monkeypatch):
    versions = Versions(tmp_path)
    versions.add((str(i), Version("1 0", "d", "robin")) for i in range(500))
    with (tmp_path / "images.jsonl").open("ab") as file:
        file.write(b'["\xff", "1"]\n[1\n')
    monkeypatch.setattr(files, "read_text", None)
    assert Versions(tmp_path).label("499") == "robin"
    (tmp_path / "images.jsonl").unlink()
    os.mkfifo(tmp_path / "images.jsonl")
    with pytest.raises(errors.ReadError, match="named pipe"):
        Versions(tmp_path)


def test_links_are_followed_only_for_names_that_are_new(tmp_path, monkeypatch):
    paths = [str(tmp_path / f"{i}.png") for i in range(9)]
    for path in paths:
        pathlib.Path(path).write_bytes(b"x")
    (tmp_path / "link.png").symlink_to(paths[0])
    resolved: list[str] = []
    of = image_versions.RealPaths.of

    def note(self, path):
        resolved.append(path)
        return of(self, path)

    monkeypatch.setattr(image_versions.RealPaths, "of", note)
    compare = Versions(tmp_path).compare
    assert set(compare(paths, sources.open_source(paths[:5]), None).changed) == {
        *range(5)
    }
    # Once by the source itself.
    assert resolved == paths[:5]
    changes = compare(paths, sources.open_source([str(tmp_path / "link.png")]), None)
    assert (changes.new, changes.changed) == ([], {0: paths[0]})
