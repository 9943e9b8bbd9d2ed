"""A folder becomes a table of embeddings, though the process be killed."""

import csv
import errno
import pathlib
import shutil
import subprocess
import sys
import time

from helpers import shrunk
import numpy as np
import pyarrow.parquet
import pytest

import deeprank_jax
from deeprank_jax import errors
from deeprank_jax.inference import embedding_table
from deeprank_jax.inference.sources import open_source

ROOT = pathlib.Path(__file__).parents[2]
# As the command, in parts so small that there are many, and not in a hurry.
_EMBED = """
import sys, time
import deeprank_jax
from deeprank_jax.inference import embedding_table as embed_file
from deeprank_jax.inference import sources as source
embed_file._PART_SIZE = 4
write = embed_file._write
def slow(embeddings, indices, path):
    write(embeddings, indices, path)
    print(path, flush=True)
    time.sleep(0.02)
embed_file._write = slow
records = source.open_source(sys.argv[2])
embed_file.embed_to_file(deeprank_jax.load(sys.argv[1]), records, sys.argv[3])
"""


@pytest.fixture(scope="module")
def model(exported):
    return deeprank_jax.load(exported)


@pytest.fixture
def some_photos(tmp_path):
    folder = shrunk.write_images(tmp_path / "photos", num_classes=4, num_images=5)
    (folder / "class 01" / "bad.png").write_bytes(b"no image")
    return folder


def test_the_table_holds_what_the_model_says(model, some_photos, tmp_path):
    records = open_source(str(some_photos))
    out = tmp_path / "new" / "table.parquet"
    assert embedding_table.embed_to_file(model, records, out) == (20, 1)
    paths, labels, embeddings, fingerprint = embedding_table.read_table(out)
    assert paths == sorted(map(str, some_photos.rglob("[0-9].png")))
    assert labels == [pathlib.Path(path).parent.name for path in paths]
    assert fingerprint == model.fingerprint
    np.testing.assert_allclose(embeddings, model.embed(paths), atol=1e-6)
    with (out.parent / "table.parquet.bad.csv").open() as file:
        (bad,) = csv.DictReader(file)
    assert bad["record"].endswith("bad.png")
    assert "not an image" in bad["reason"]
    left = sorted(p.name for p in out.parent.iterdir())
    assert left == ["table.parquet", "table.parquet.bad.csv"]


def test_a_table_may_have_the_longest_name(model, some_photos, tmp_path):
    out = tmp_path / "new" / f"{'x' * 247}.parquet"
    records = open_source(str(some_photos))
    assert embedding_table.embed_to_file(model, records, out) == (20, 1)
    names = {path.name[-8:] for path in out.parent.iterdir()}
    assert names == {".parquet", ".bad.csv"}


def test_killed_ten_times_it_is_the_same_table(model, exported, some_photos, tmp_path):
    command = [sys.executable, "-c", _EMBED, exported, some_photos]
    whole, out = tmp_path / "whole.parquet", tmp_path / "killed.parquet"
    subprocess.run([*command, whole], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    kills = 0
    rng = np.random.default_rng(0)
    for _ in range(10):
        process = subprocess.Popen(
            [*command, out], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        # One part more is done each time but some, and then there is nothing left.
        process.stdout.readline() if kills % 2 else time.sleep(rng.uniform(0, 2))
        kills += process.poll() is None
        process.kill()
        process.communicate()
    assert kills > 5
    subprocess.run([*command, out], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert out.read_bytes() == whole.read_bytes()
    reasons = [p.with_name(f"{p.name}.bad.csv").read_text() for p in (out, whole)]
    assert reasons[0] == reasons[1]
    assert not list(tmp_path.glob("*.parts"))


def stop_half_way(model, records, out, monkeypatch):
    """Leaves a table half done, as a full disk does."""
    monkeypatch.setattr(embedding_table, "_PART_SIZE", 8)
    write, written = embedding_table._write, []

    def full(embeddings, indices, path):
        if len(written) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        write(embeddings, indices, path)

    monkeypatch.setattr(embedding_table, "_write", full)
    with pytest.raises(
        embedding_table.CannotWriteError, match=r"No space left.*are kept"
    ):
        embedding_table.embed_to_file(model, records, out)
    monkeypatch.setattr(embedding_table, "_write", write)
    assert not out.exists()


def count_embedded(model, monkeypatch):
    embedded = []
    call = model.embed_batches
    count = lambda batches: call(embedded.append(len(b)) or b for b in batches)
    monkeypatch.setattr(model, "embed_batches", count)
    return embedded


def test_what_is_done_is_not_done_again(model, some_photos, tmp_path, monkeypatch):
    records, out = open_source(str(some_photos)), tmp_path / "table.parquet"
    stop_half_way(model, records, out, monkeypatch)
    embedded = count_embedded(model, monkeypatch)
    embedding_table.embed_to_file(model, records, out)
    assert sum(embedded) == len(records) - 8
    assert len(embedding_table.read_table(out)[0]) == 20


def test_other_images_begin_anew(
    model, some_photos, tmp_path, monkeypatch, warnings_logged
):
    out = tmp_path / "table.parquet"
    stop_half_way(model, open_source(str(some_photos)), out, monkeypatch)
    (some_photos / "class 00" / "0.png").unlink()
    records = open_source(str(some_photos))
    embedded = count_embedded(model, monkeypatch)
    embedding_table.embed_to_file(model, records, out)
    assert sum(embedded) == len(records)
    assert any("starting from the beginning" in text for text in warnings_logged)
    assert len(embedding_table.read_table(out)[0]) == 19


def test_an_image_that_changed_begins_anew(model, some_photos, tmp_path, monkeypatch):
    out = tmp_path / "table.parquet"
    stop_half_way(model, open_source(str(some_photos)), out, monkeypatch)
    one, other = some_photos / "class 00" / "0.png", some_photos / "class 03" / "0.png"
    shutil.copy(other, one)
    embedding_table.embed_to_file(model, open_source(str(some_photos)), out)
    embeddings = embedding_table.read_table(out)[2]
    np.testing.assert_allclose(embeddings[:1], model.embed(other), atol=1e-6)


def test_a_folder_is_no_table(model, some_photos, tmp_path):
    with pytest.raises(embedding_table.CannotWriteError, match="is a folder; give"):
        embedding_table.embed_to_file(model, open_source(str(some_photos)), tmp_path)


def test_other_tables_are_refused(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"path": ["a"]}), tmp_path / "t.parquet")
    for name in ("t.parquet", "gone.parquet"):
        with pytest.raises(errors.DataError, match=name):
            embedding_table.read_table(tmp_path / name)


def test_no_flipped_bit_of_a_table_changes_a_row(model, some_photos, tmp_path):
    out = tmp_path / "photos.parquet"
    embedding_table.embed_to_file(model, open_source(str(some_photos)), out)
    whole, content = embedding_table.read_table(out), out.read_bytes()
    num_refused = 0
    for i in np.random.default_rng(0).integers(0, len(content), 200).tolist():
        out.write_bytes(content[:i] + bytes([content[i] ^ 4]) + content[i + 1 :])
        try:
            paths, labels, embeddings, _ = embedding_table.read_table(out)
        except errors.DataError:
            num_refused += 1
            continue
        assert (paths, labels) == whole[:2]
        np.testing.assert_array_equal(embeddings, whole[2])
    assert num_refused > 100


def test_a_folder_is_a_source(some_photos):
    (some_photos / "loose.JPG").write_bytes(b"")
    (some_photos / "notes.txt").write_text("no image")
    records = open_source(str(some_photos))
    names = [records.describe(i) for i in range(len(records))]
    assert len(names) == 22
    assert records.label_name(names.index(str(some_photos / "loose.JPG"))) == ""
    assert records.label_name(0) == "class 00"
    assert records.read(0) == pathlib.Path(names[0]).read_bytes()


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".parquet"])
def test_a_list_is_a_source(some_photos, tmp_path, suffix):
    paths = sorted(map(str, some_photos.rglob("0.png")))
    labels = [f"0{i}" for i in range(len(paths))]
    file = tmp_path / f"list{suffix}"
    if suffix == ".txt":
        file.write_text("\n".join(paths) + "\n\n")
        labels = [""] * len(paths)
    elif suffix == ".csv":
        rows = zip(paths, labels, strict=True)
        file.write_text("path,label\n" + "".join(f"{a},{b}\n" for a, b in rows))
    else:
        table = pyarrow.table({"path": paths, "label": labels})
        pyarrow.parquet.write_table(table, file)
    records = open_source(str(file))
    indices = range(len(records))
    assert [records.describe(i) for i in indices] == paths
    assert [records.label_name(i) for i in indices] == labels


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("gone", None, "there is no such file or folder; give a folder"),
        ("list.json", "{}", "neither .csv nor .parquet"),
        ("list.csv", "file\na.png\n", r"has no column 'path' \(its columns are file\)"),
        ("list.parquet", "no parquet", "cannot be read"),
        ("list.txt", "\n", "holds no image"),
        ("tfds:emoji", None, "names no split; give tfds:NAME/SPLIT"),
    ],
)
def test_what_is_no_source_is_told(tmp_path, monkeypatch, name, content, match):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        pathlib.Path(name).write_text(content)
    with pytest.raises(errors.DataError, match=match):
        open_source(name)


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(errors.DataError, match="holds no image"):
        open_source(str(tmp_path))


def embed_but_join(model, photos, folder, monkeypatch):
    """Returns records, path and content of a table whose parts are all there again."""
    records, out = open_source(str(photos)), folder / "table.parquet"
    embedding_table.embed_to_file(model, records, out)
    whole = out.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(embedding_table, "_join", interrupt)
        with pytest.raises(KeyboardInterrupt):
            embedding_table.embed_to_file(model, records, out)
    return records, out, whole


def interrupt(*args):
    raise KeyboardInterrupt


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "deleted", "another"])
def test_a_damaged_part_is_embedded_again(
    model, some_photos, tmp_path, monkeypatch, damage, warnings_logged
):
    monkeypatch.setattr(embedding_table, "_PART_SIZE", 4)
    records, out, whole = embed_but_join(model, some_photos, tmp_path, monkeypatch)
    path = sorted((tmp_path / "table.parquet.parts").glob("*.npz"))[2]
    content = bytearray(path.read_bytes())
    content[250] ^= 1
    damages = {"cut": content[:-9], "flipped": content, "emptied": b""}
    if damage == "deleted":
        path.unlink()
    elif damage == "another":
        np.savez(path, embeddings=np.zeros((4, 8)))
    else:
        path.write_bytes(damages[damage])
    warnings_logged.clear()
    embedding_table.embed_to_file(model, records, out)
    assert out.read_bytes() == whole
    told = [x for x in warnings_logged if f"{path} is damaged" in x]
    assert len(told) == (damage != "deleted")


@pytest.mark.parametrize("content", [b"\xff", b"{", b"[]", b"{}"])
def test_a_damaged_list_of_parts_begins_anew(
    model, some_photos, tmp_path, monkeypatch, content
):
    records, out, whole = embed_but_join(model, some_photos, tmp_path, monkeypatch)
    (tmp_path / "table.parquet.parts" / "parts.json").write_bytes(content)
    embedding_table.embed_to_file(model, records, out)
    assert out.read_bytes() == whole


def test_no_flipped_bit_of_a_footer_changes_a_table(model, some_photos, tmp_path):
    """It has names, types and the model, which page checksums do not cover."""
    out = tmp_path / "photos.parquet"
    embedding_table.embed_to_file(model, open_source(str(some_photos)), out)
    paths, labels, embeddings, fingerprint = embedding_table.read_table(out)
    content, num_refused = out.read_bytes(), 0
    for place in range(len(content) - 2000, len(content), 3):
        bit = 1 << place % 8
        changed = bytes([content[place] ^ bit])
        out.write_bytes(content[:place] + changed + content[place + 1 :])
        try:
            read = embedding_table.read_table(out)
        except errors.DataError:
            num_refused += 1
            continue
        assert (read[0], read[1], read[3]) == (paths, labels, fingerprint), place
        np.testing.assert_array_equal(read[2], embeddings)
    assert num_refused > 100


@pytest.mark.parametrize("name", ["table.parquet.parts", "table.parquet.bad.csv"])
def test_links_beside_the_table_are_not_followed(model, some_photos, tmp_path, name):
    target = tmp_path / "precious"
    target.mkdir()
    (target / "000000000000.npz").write_text("precious")
    (tmp_path / name).symlink_to(target)
    records, out = open_source(str(some_photos)), tmp_path / "table.parquet"
    with pytest.raises(errors.UserError, match=f"{name} is a link; delete it"):
        embedding_table.embed_to_file(model, records, out)
    assert (target / "000000000000.npz").read_text() == "precious"
