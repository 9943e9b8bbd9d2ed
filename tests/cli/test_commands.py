"""The command `deeprank`, from the images of a folder to what it prints and draws."""

import csv
import html
import io
import itertools
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import urllib.parse

from helpers.commands import run_command
import numpy as np
from PIL import Image
import pytest

import deeprank_jax
from deeprank_jax.cli import __main__
from deeprank_jax.data.records import Records
from deeprank_jax.distributed import backend
from deeprank_jax.errors import ArtifactError
from deeprank_jax.inference import artifact, between, embedding_table, index_origins
from deeprank_jax.inference.model import Model
from deeprank_jax.search.votes import vote

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setattr(backend, "keep_compiled", lambda: None)


@pytest.fixture
def deeprank(capsys):
    """Runs a command in this process and returns what it prints."""

    def call(*words):
        capsys.readouterr()
        __main__.main([str(word) for word in words])
        return capsys.readouterr().out

    return call


@pytest.fixture(scope="module")
def index(exported, photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / "photos.index"
    __main__.main(["index", str(photos), f"--model={exported}", f"--out={path}"])
    return path


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_that_a_terminal_lacks_are_escaped(
    exported, photos, tmp_path, monkeypatch, encoding
):
    folder = tmp_path / "photos" / os.fsdecode(b"class\xe9")
    names = [os.fsdecode(b"caf\xe9.png"), "hibou é.png", "鳥.png"]
    folder.mkdir(parents=True)
    for name, image in zip(names, sorted(photos.rglob("*.png")), strict=False):
        shutil.copy(image, folder / name)
    for words in ((), ("--out=OUT.csv",), ("--out=OUT.html",)):
        printed = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", printed)
        words = [word.replace("OUT", str(tmp_path / "out")) for word in words]
        image = folder / names[1]
        call = ["rank", str(folder.parent), f"--model={exported}", f"--image={image}"]
        __main__.main([*call, *words])
        text = printed.buffer.getvalue().decode(encoding)
        if words == []:
            assert len(text.splitlines()) == 4
            assert r"caf\xe9.png" in text
            assert (r"\u9ce5.png" in text) == (encoding != "utf-8")
    rows = csv.DictReader((tmp_path / "out.csv").read_text("utf-8").splitlines())
    assert {row["label"] for row in rows} == {r"class\xe9"}
    assert "鳥.png" in (tmp_path / "out.html").read_text(encoding="utf-8")
    files = {os.fsencode(folder / name) for name in names}
    assert set(linked_files(tmp_path / "out.html")) == files


def linked_files(page):
    """Returns the path of each file that a page links to, as bytes."""
    addresses = re.findall(r'<a href="(.*?)">', page.read_text("utf-8"))
    return [
        os.path.normpath(
            os.path.join(os.fsencode(page.parent), urllib.parse.unquote_to_bytes(x))
        )
        for x in map(html.unescape, addresses)
    ]


def test_closed_output_is_said_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(Model, "__init__", lambda *_: pytest.fail("work has begun"))
    with pytest.raises(SystemExit, match="standard output is closed; send it to a f"):
        __main__.main(["rank", str(tmp_path), f"--model={tmp_path}", "--image=x.png"])


@pytest.mark.usefixtures("pretrained_folder")
def test_commands_lead_from_images_and_from_a_run_to_a_search(
    trained, photos, tmp_path
):
    """As the README has them, each in a process of its own."""
    text = (ROOT / "README.md").read_text()
    lines = re.findall(r"^deeprank (?:export|index|search) .*$", text, re.MULTILINE)
    assert [line.split()[1] for line in lines] == ["index", "search", "export"]
    # The exported model takes the place of the pretrained one.
    lines += [
        line.replace("efficientnet_lite0", "model").replace("photos.index", "own.index")
        for line in lines[:2]
    ]
    shutil.copytree(photos, tmp_path / "photos")
    shutil.copytree(trained, tmp_path / "runs" / "emoji")
    shutil.copy(sorted(photos.rglob("*.png"))[7], tmp_path / "query.jpg")
    for line in lines:
        words = line.split()[1:]
        done = run_command(words, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        if "search" in words:
            first = done.stdout.splitlines()[1].split(maxsplit=2)
            assert first[:2] == ["1", "0.0000"]
    assert (tmp_path / "found.html").stat().st_size > 5_000


def test_the_script_is_installed():
    script = pathlib.Path(sys.executable).with_name("deeprank")
    if not script.exists():
        pytest.skip("the package is not installed: pip install --no-deps -e .")
    done = subprocess.run(
        [script, "--help"], capture_output=True, text=True, check=True
    )
    for name in ("export", "embed", "compare", "index", "search", "rank", "clusters"):
        assert name in done.stdout


def test_two_images_are_compared(deeprank, exported, photos, tmp_path):
    one, other = sorted(photos.rglob("*.png"))[:8:7]
    out = tmp_path / "pair.png"
    said = deeprank("compare", one, other, f"--model={exported}", f"--out={out}")
    wanted = str(deeprank_jax.load(exported).compare(one, other))
    assert said == f"{wanted}\nWrote {out}.\n"
    with Image.open(out) as picture:
        assert picture.size[0] >= 2 * 122


def test_a_folder_becomes_a_table(deeprank, exported, photos, tmp_path):
    out = tmp_path / "photos.parquet"
    said = deeprank("embed", photos, f"--model={exported}", f"--out={out}")
    assert said == f"Wrote 72 embeddings of 8 numbers to {out}.\n"
    assert len(embedding_table.read_table(out)[0]) == 72
    some = sorted(photos.rglob("*.png"))[:2]
    path = tmp_path / "list.csv"
    path.write_text(f"path,label\n{some[0]},one\n{some[1]},\n")
    said = deeprank("embed", path, f"--model={exported}", f"--out={out}")
    assert said.endswith("\n1 of 2 images have no label.\n")


def test_a_search_finds_the_nearest(deeprank, exported, photos, index, tmp_path):
    paths = sorted(photos.rglob("*.png"))
    out = tmp_path / "found.html"
    words = ("search", paths[3], f"--index={index}", "--k=5", f"--out={out}")
    said = deeprank(*words, "--include_query")
    rows = [line.split() for line in said.splitlines()[1:6]]
    model = deeprank_jax.load(exported)
    distances = np.sum((model.embed(paths) - model.embed(paths[3])) ** 2, axis=1)
    np.testing.assert_allclose(
        [float(row[1]) for row in rows], np.sort(distances)[:5], atol=1e-4
    )
    assert rows[0][-1] == str(paths[3]).rsplit(maxsplit=1)[-1]
    assert "Labels by vote: class 00" in said
    page = out.read_text()
    assert page.count("<img") == 6
    assert str(paths[3]) in page
    linked = linked_files(out)
    assert linked[:2] == [os.fsencode(paths[3])] * 2
    assert {os.fsdecode(file) for file in linked} <= set(map(str, paths))
    said = deeprank(*words)
    assert said.splitlines()[1:5] != rows[1:]
    assert [line.split()[1] for line in said.splitlines()[1:5]] == [
        row[1] for row in rows[1:]
    ]
    note = f"Left out: {paths[3]}, the image itself; --include_query keeps it."
    assert note in said.splitlines()


def frames_of(page):
    """Returns class and distance of each answer on a page."""
    found = re.findall(r'<img class="(near|far)".*?<span>([\d.]+)</span>', page, re.S)
    return [(name, float(distance)) for name, distance in found]


@pytest.mark.parametrize("metric", ["squared_euclidean", "cosine"])
def test_frames_and_votes_say_the_same_in_both_metrics(
    deeprank, exported, photos, index, tmp_path, metric
):
    path = tmp_path / "other.index"
    deeprank(
        "index", photos, f"--model={exported}", f"--out={path}", f"--metric={metric}"
    )
    query = sorted(photos.rglob("*.png"))[0]
    words = ("search", query, "--k=72", "--include_query")
    said = [
        deeprank(*words, f"--index={x}", f"--out={tmp_path / f'{i}.html'}")
        for i, x in enumerate((index, path))
    ]
    assert (
        said[0].split("Labels by vote")[1][:30]
        == (said[1].split("Labels by vote")[1][:30])
    )
    pages = [frames_of((tmp_path / f"{i}.html").read_text()) for i in range(2)]
    near = deeprank_jax.load(exported).cluster_distance
    assert {name for name, _ in pages[0]} == {"near", "far"}
    for name, distance in pages[0]:
        # What is shown is rounded.
        assert abs(distance - near) < 1e-4 or (name == "near") == (distance <= near)
    num_near = [sum(name == "near" for name, _ in page) for page in pages]
    assert num_near[0] == num_near[1]
    model = deeprank_jax.load(exported)
    paths = sorted(photos.rglob("*.png"))
    distances = np.sum((model.embed(paths) - model.embed(query)) ** 2, axis=1)
    (_, share), *_ = vote([path.parent.name for path in paths], distances, near)
    assert f"Labels by vote: class 00 {share:.0%}," in said[0]


def test_what_an_index_is_cannot_be_changed(exported, photos, index):
    words = ["index", str(photos), f"--model={exported}", f"--out={index}"]
    for option in ("--metric=cosine", "--kind=hnsw"):
        with pytest.raises(SystemExit, match=r"exists already with the (metric|kind)"):
            __main__.main([*words, option])


def test_a_list_may_name_an_image_twice(deeprank, exported, photos, tmp_path):
    (tmp_path / "index").mkdir()  # An empty folder will do.
    one = next(photos.rglob("*.png"))
    shutil.copy(one, tmp_path / "one.png")
    shutil.copy(one, tmp_path / "two.png")
    (tmp_path / "list.txt").write_text("\ufefftwo.png\none.png\none.png\n", "utf-8")
    words = ("index", tmp_path / "list.txt", f"--model={exported}")
    said = deeprank(*words, f"--out={tmp_path / 'index'}")
    assert "2 images added, 2 in all, 2 of them without a label (exact" in said
    said = deeprank("search", one, f"--index={tmp_path / 'index'}")
    assert str(tmp_path / "one.png") in said


def test_images_that_look_unlike_are_no_copies(deeprank, exported, photos, tmp_path):
    """However near the model puts them."""
    other = altered(exported, tmp_path, copies={"distance": 9.0, "pixel_distance": 0.0})
    out = tmp_path / "groups.csv"
    words = ("duplicates", photos, f"--model={other}", f"--out={out}")
    assert deeprank(*words).splitlines()[1:] == [f"Wrote {out}."]
    assert out.read_text().strip() == "group,label,path"


def test_a_datasets_images_are_shown(monkeypatch, tmp_path):
    record = Records(
        name="some",
        labels=np.zeros((2, 1), np.int32),
        level_names=("label",),
        label_names=(("one",),),
        read=lambda index: b"image %d" % index,
        describe=lambda index: f"some/test[{index}]",
    )
    monkeypatch.setattr(index_origins, "open_source", lambda *args, **options: record)
    options = {"model": "m", "source": "tfds:some/test", "data_dir": "d"}
    index_origins.write_origins(tmp_path, **options)
    find = index_origins.read_origins(tmp_path).create_reader(None)
    assert find("some/test[1]") == b"image 1"
    with pytest.raises(ArtifactError, match=r"gone\.png is not below the folders"):
        find("gone.png")


def test_folders_of_the_user_are_found(deeprank, exported, photos, monkeypatch):
    monkeypatch.setenv("HOME", str(photos.parent))
    one = sorted(photos.rglob("*.png"))[0].relative_to(photos.parent)
    said = deeprank("compare", f"~/{one}", f"~/{one}", f"--model={exported}")
    assert said.startswith("similar: ")
    deeprank("index", f"~/{one.parent}", f"--model={exported}", "--out=~/home.index")
    assert (photos.parent / "home.index").is_dir()


def test_a_reader_may_have_read_enough(exported, photos):
    one = sorted(photos.rglob("*.png"))[0]
    command = f"rank {shlex.quote(str(photos))} --model={exported} --image={one}"
    quoted = command.replace(f"--image={one}", f"--image={shlex.quote(str(one))}")
    done = subprocess.run(
        f"{sys.executable} -m deeprank_jax.cli {quoted} | true",
        shell=True, cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "Broken pipe" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_search_can_be_among_some_labels(deeprank, photos, index):
    query = sorted(photos.rglob("*.png"))[0]
    words = ("--label=class 03", "--label=class 05", "--k=50")
    said = deeprank("search", query, f"--index={index}", *words)
    rows = said.splitlines()[1:-1]
    assert len(rows) == 12  # The query has another label.
    assert all("class 03" in row or "class 05" in row for row in rows)


def test_a_label_that_no_image_has_is_answered_with_those_there_are(
    exported, photos, index, tmp_path
):
    query = str(sorted(photos.rglob("*.png"))[0])
    words = ["search", query, f"--index={index}"]
    with pytest.raises(SystemExit, match=r"label 'clas 03' \(did you mean 'class 03'"):
        __main__.main([*words, "--label=clas 03"])
    message = r"'trousers'; its labels are 'class 00', .*'class 09' and 2 others\.$"
    with pytest.raises(SystemExit, match=message):
        __main__.main([*words, "--label=trousers"])
    (tmp_path / "list.txt").write_text(query)
    words[2] = f"--index={tmp_path / 'other.index'}"
    __main__.main(
        ["index", str(tmp_path / "list.txt"), f"--model={exported}",
         f"--out={tmp_path / 'other.index'}"]
    )  # fmt: skip
    with pytest.raises(SystemExit, match="'robin'; none of its images has a label"):
        __main__.main([*words, "--label=robin"])


@pytest.mark.parametrize(
    ("option", "kind", "reason"),
    [
        (
            "--index",
            "model",
            "is not an index: it is an exported model, which is given",
        ),
        ("--index", "run", "is not an index: it is a run of `deeprank train`"),
        ("--index", "folder", "is not an index: it has no index.json; make one"),
        ("--index", "file", "is not an index: it is a file; make one"),
        ("--model", "index", "is not an exported model, but an index, which is given"),
        (
            "--model",
            "run",
            "is not an exported model, but a run; export it by `deeprank",
        ),
    ],
)
def test_a_folder_of_another_kind_is_named(tmp_path, option, kind, reason):
    path = tmp_path / kind
    if kind == "file":
        path.touch()
    else:
        path.mkdir()
    for name in {"model": ["model.json", "config.json"], "run": ["config.json"],
                 "index": ["index.json"]}.get(kind, []):  # fmt: skip
        (path / name).write_text("{}")
    words = ["search", "x.png", "--index=x"]
    if option == "--model":
        words = ["rank", str(tmp_path), "--image=x.png"]
    with pytest.raises(SystemExit, match=re.escape(reason)):
        __main__.main([*words, f"{option}={path}"])


def test_an_index_takes_only_what_is_new(deeprank, exported, photos, tmp_path):
    some = shutil.copytree(photos, tmp_path / "photos")
    late = some / "class 00" / "0.png"
    late.rename(tmp_path / "late.png")
    (some / "class 01" / "bad.png").write_bytes(b"no image")
    words = ("index", some, f"--model={exported}", f"--out={tmp_path / 'index'}")
    said = deeprank(*words)
    assert "71 images added, 71 in all (exact" in said
    assert said.endswith("\n1 image could not be read; the log gives the reasons.\n")
    (tmp_path / "late.png").rename(late)
    assert "1 image added, 72 in all (exact" in deeprank(*words)


def test_images_are_ranked(deeprank, exported, photos, tmp_path):
    query = sorted(photos.rglob("*.png"))[9]
    words = ("rank", photos, f"--model={exported}", f"--image={query}")
    assert len(deeprank(*words).splitlines()) == 1 + 71 + 1
    words = (*words, "--include_query")
    assert deeprank(*words).splitlines()[1].split()[:2] == ["1", "0.0000"]
    for name in ("ranked.html", "ranked.csv"):
        said = deeprank(*words, f"--out={tmp_path / name}")
        assert said == (
            f"72 images of {photos} by similarity to {query}.\n"
            f"Wrote {tmp_path / name}.\n"
        )
    with (tmp_path / "ranked.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 72
    distances = [float(row["distance"]) for row in rows]
    assert distances == sorted(distances)
    assert rows[0]["path"] == str(query)


def test_copies_are_found(deeprank, exported, photos, tmp_path):
    some = shutil.copytree(photos, tmp_path / "photos")
    one = some / "class 02" / "1.png"
    shutil.copy(one, some / "class 07" / "copy.png")
    out = tmp_path / "groups.csv"
    deeprank("duplicates", some, f"--model={exported}", f"--out={out}")
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    groups = {}
    for row in rows:
        groups.setdefault(row["group"], set()).add(row["path"])
    (group,) = [g for g in groups.values() if str(one) in g]
    assert str(some / "class 07" / "copy.png") in group
    said = deeprank("duplicates", some, f"--model={exported}", "--max_distance=0")
    assert "1 of 73 images are copies of others within 0.0000; of each group" in said
    (kept,) = [row for row in rows if row["path"] in group and row["keep"]]
    assert (kept["keep"], kept["distance"]) == ("keep", "0.0000")
    page = tmp_path / "groups.html"
    said = deeprank("duplicates", some, f"--model={exported}", f"--out={page}")
    assert len(said.splitlines()) == 2
    assert page.read_text().count("<span>keep</span>") == len(groups)


def test_label_errors_are_drawn(deeprank, exported, photos, tmp_path):
    some = shutil.copytree(photos, tmp_path / "photos")
    for number in range(3):
        moved = some / f"class 0{number}" / "0.png"
        shutil.move(moved, some / "class 11" / f"moved {number}.png")
    words = ("label-errors", some, f"--model={exported}", "--num=2")
    table, page = tmp_path / "errors.csv", tmp_path / "errors.html"
    said = deeprank(*words)
    num = int(said.splitlines()[-1].split()[0])
    assert num > 2
    assert len(said.splitlines()) == 4
    assert said.endswith(
        f"{num} of 72 images are nearer to another label than to their own; the first "
        "2 are shown.\n"
    )
    deeprank(*words, f"--out={table}")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == num
    assert "moved" in rows[0]["path"]
    deeprank(*words, f"--out={page}")
    assert page.read_text().count("<h2>") == 2
    paths = [rows[i][name] for i in range(2) for name in ("path", "nearest path")]
    assert set(map(os.fsencode, paths)) <= set(linked_files(page))


def test_label_errors_need_two_labels(deeprank, exported, photos, tmp_path):
    some = shutil.copytree(photos / "class 03", tmp_path / "photos")
    with pytest.raises(SystemExit, match="its images have 0 labels"):
        deeprank("label-errors", some, f"--model={exported}")
    (some / "one").mkdir()
    shutil.move(some / "0.png", some / "one" / "0.png")
    with pytest.raises(SystemExit, match="its images have 1 label, and a wrong one"):
        deeprank("label-errors", some, f"--model={exported}")


def test_similar_tiles_are_listed_and_drawn(deeprank, exported, tmp_path):
    path, out = tmp_path / "large.png", tmp_path / "map.png"
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, 48:] = 255
    Image.fromarray(pixels).save(path)
    words = ("tile-map", path, f"--model={exported}", "--at=24,24")
    said = deeprank(*words, "--num=2", f"--out={out}").splitlines()
    assert said[0].split() == ["rank", "cosine", "at", "distance"]
    assert said[1].split()[:2] == ["1", "1.0000"]
    x, y = map(int, said[1].split()[2].split(","))
    assert x < 48
    assert float(said[1].split()[3]) == round(np.hypot(x - 24, y - 24))
    assert said[3].startswith("Compared 24 tiles of 16 x 16 pixels with that at 24,24")
    assert said[4] == f"Wrote {out}."
    # Both halves have a colour of the map, other than black, white and grey.
    drawn = np.asarray(Image.open(out).convert("RGB")).astype(int)
    assert np.mean(drawn.max(axis=2) - drawn.min(axis=2) > 40) > 0.4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--at=96,10"], "the place 96,10 is outside of its 96 x 64 pixels"),
        (["--at=5,5", "--tile=65"], "too few for a tile of 65 x 65; give a smaller"),
        (["--at=5,5", "--level=1"], "has no level 1"),
        (["--at=5,5", "--out=map.html"], "the name must end with .png"),
        (["--at=5"], "2"),
        (["--at=5,5", "--stride=0"], "2"),
    ],
)
def test_places_that_an_image_lacks_are_named(
    deeprank, exported, tmp_path, flags, message
):
    path = tmp_path / "large.png"
    Image.new("RGB", (96, 64)).save(path)
    with pytest.raises(SystemExit, match=message):
        deeprank("tile-map", path, f"--model={exported}", *flags)


def test_a_label_is_drawn_between_two_others(deeprank, exported, photos, tmp_path):
    words = ("between", photos, f"--model={exported}", "--label=class 04")
    for suffix in (".png", ".svg"):
        out = tmp_path / f"between{suffix}"
        said = deeprank(*words, f"--out={out}")
        assert said.endswith(f"Wrote {out}.\n")
        assert said.splitlines()[-2].startswith("class 04 lies between class ")
    with Image.open(tmp_path / "between.png") as picture:
        colors = {color for _, color in picture.convert("RGB").getcolors(2**20)}
    # The three labels are drawn, each in its colour.
    assert {(58, 130, 201), (217, 126, 34), (44, 156, 116)} <= colors
    assert (tmp_path / "between.svg").read_text().count("<image") >= 3


def test_a_label_that_is_not_between_is_said_and_not_drawn(
    deeprank, exported, photos, tmp_path
):
    model = deeprank_jax.load(exported)
    place = between.place_label(model, model.open_images(photos), "class 04", num=99)
    are_between = {
        frozenset(place.names[end] for end in arc.ends) for arc in place.arcs
    }
    others = [name for name in place.names if name != "class 04"]
    first, second = next(
        pair
        for pair in itertools.combinations(others, 2)
        if frozenset(pair) not in are_between
    )
    out = tmp_path / "between.png"
    said = deeprank(
        "between", photos, f"--model={exported}", "--label=class 04",
        f"--ends={first},{second}", f"--out={out}",
    )  # fmt: skip
    assert said == (
        f"class 04 lies not between {first} and {second}; the nearest label is "
        f"{place.nearest} (cosine {place.nearest_cosine:.3f}).\n"
        f"{out} was not written: there is no arc to draw.\n"
    )
    assert not out.exists()


def test_names_of_labels_are_drawn_as_they_are(deeprank, exported, photos, tmp_path):
    for old, new in (
        ("class 03", "$5_$10"),
        ("class 04", "$\\frac$"),
        ("class 05", "c"),
    ):
        shutil.copytree(photos / old, tmp_path / "photos" / new)
    out = tmp_path / "between.svg"
    names = {"$5_$10", "$\\frac$", "c"}
    for label in sorted(names):
        words = ("between", tmp_path / "photos", f"--model={exported}")
        deeprank(*words, f"--label={label}", f"--out={out}")
    assert out.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--label=clas 04"], r"has the label 'clas 04' \(did you mean 'class 04'\?\)"),
        (["--label=class 04", "--ends=class 04,class 05"], "must be different ones"),
        (
            ["--label=class 04", "--ends=class 03,mars"],
            "has the label 'mars'; its 12 l",
        ),
    ],
)
def test_a_label_that_cannot_be_placed_is_named(
    deeprank, exported, photos, flags, message
):
    with pytest.raises(SystemExit, match=message):
        deeprank("between", photos, f"--model={exported}", *flags)


def test_a_label_needs_two_others_to_lie_between(deeprank, exported, photos, tmp_path):
    for name in ("class 03", "class 04"):
        shutil.copytree(photos / name, tmp_path / "photos" / name)
    words = ("between", tmp_path / "photos", f"--model={exported}", "--label=class 04")
    with pytest.raises(SystemExit, match="have 2 labels, and one lies between two"):
        deeprank(*words)


def test_one_end_is_refused(deeprank, exported, photos, capsys):
    words = ("between", photos, f"--model={exported}", "--label=a", "--ends=class 03")
    with pytest.raises(SystemExit):
        deeprank(*words)
    assert "--ends takes two labels, separated by a comma" in capsys.readouterr().err


def test_clusters_are_drawn(deeprank, exported, photos, tmp_path):
    out = tmp_path / "clusters.html"
    words = ("clusters", photos, f"--model={exported}", "--num=12", f"--out={out}")
    assert deeprank(*words) == f"12 clusters of 72 images.\nWrote {out}.\n"
    assert out.read_text().count("<h2>") == 12
    paths = map(os.fsencode, photos.rglob("*.png"))
    assert sorted(linked_files(out)) == sorted(paths)


def altered(exported, tmp_path, **values):
    """Returns a copy of the model that says something else of itself."""
    info = json.loads((exported / artifact.INFO).read_text())
    with artifact.writing(tmp_path / "other") as folder:
        for file in exported.iterdir():
            shutil.copy(file, folder)
        (folder / artifact.INFO).write_text(json.dumps({**info, **values}))
    return tmp_path / "other"


def test_another_model_cannot_search_an_index(exported, photos, index, tmp_path):
    other = altered(exported, tmp_path, fingerprint="another")
    query = next(photos.rglob("*.png"))
    with pytest.raises(
        SystemExit, match=r"deeprank search: .*not of another: use that model"
    ):
        __main__.main(["search", str(query), f"--index={index}", f"--model={other}"])


def test_pairs_and_collections_have_distances_of_their_own(exported, tmp_path):
    model = deeprank_jax.load(altered(exported, tmp_path, cluster_distance=0.25))
    info = json.loads((exported / artifact.INFO).read_text())
    assert model.cluster_distance == 0.25
    assert model.threshold == info["threshold"]["distance"] != 0.25


def test_a_model_without_a_threshold_gives_no_verdict(
    deeprank, exported, photos, tmp_path
):
    other = altered(exported, tmp_path, threshold=None, cluster_distance=None)
    one, two = sorted(photos.rglob("*.png"))[:2]
    said = deeprank("compare", one, two, f"--model={other}")
    assert said.startswith("no verdict: ")
    with pytest.raises(SystemExit, match="no calibrated distance for clusters"):
        __main__.main(["clusters", str(photos), f"--model={other}"])


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["compare", "QUERY", "gone.png", "MODEL"], r"gone\.png: cannot be read"),
        (["compare", "QUERY", "README.md", "MODEL"], r"README\.md: not an image"),
        (["compare", "QUERY", "QUERY", "--model=gone"], "there is no such folder"),
        (["compare", "QUERY", "QUERY", "MODEL", "--out=a.gif"], r"\.html or \.png"),
        (["search", "QUERY", "--index=gone"], "gone is not an index"),
        (["search", "gone.png", "INDEX"], r"gone\.png: cannot be read"),
        (["rank", "gone", "MODEL", "--image=QUERY"], "no such file or folder"),
        (["search", "QUERY", "INDEX", "--label=nix"], "no image with the label 'nix'"),
        (
            ["rank", "BAD", "MODEL", "--image=QUERY"],
            r"none of 1 images can be read, the first is .*: not an image .*; give ima",
        ),
        (["index", "BAD", "MODEL", "--out=OUT"], "none of 1 images can be read"),
        (
            ["embed", "BAD", "MODEL", "--out=OUT.parquet"],
            "none of 1 images can be read",
        ),
        (["rank", "PHOTOS", "MODEL", "--image=QUERY", "--out=DIR.csv"], "cannot be w"),
        (["clusters", "PHOTOS", "MODEL", "--num=99"], "choose from 1 to 72"),
        (["export", "--workdir=gone", "--out=model"], "gone is not a run"),
        (["embed", "PHOTOS", "MODEL", "--out=/proc/no.parquet"], "cannot be written"),
    ],
    ids=lambda x: " ".join(x)[:40],
)
def test_what_goes_wrong_is_one_line(
    words, match, exported, photos, index, monkeypatch, tmp_path
):
    monkeypatch.chdir(ROOT)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "bad.png").write_bytes(b"no image")
    (tmp_path / "dir.csv").mkdir()
    query = str(sorted(photos.rglob("*.png"))[0])
    names = {
        "QUERY": query,
        "PHOTOS": str(photos),
        "MODEL": f"--model={exported}",
        "INDEX": f"--index={index}",
        "BAD": str(tmp_path / "bad"),
        "--image=QUERY": f"--image={query}",
        "--out=OUT": f"--out={tmp_path / 'out'}",
        "--out=OUT.parquet": f"--out={tmp_path / 'out.parquet'}",
        "--out=DIR.csv": f"--out={tmp_path / 'dir.csv'}",
    }
    with pytest.raises(SystemExit, match=rf"deeprank \w+: .*{match}") as stopped:
        __main__.main([names.get(word, word) for word in words])
    assert "\n" not in str(stopped.value)
