import base64
import dataclasses
import html
import os
import pathlib
import re
import urllib.parse

import cv2
from helpers.browser import open_in_browser
from helpers.report_inputs import create_inputs, create_records
import numpy as np
import pytest

from deeprank_jax.report import (
    DrawnTriplets,
    Reconstructions,
    ReportInputs,
    write_report,
)
from deeprank_jax.report import page as page_module


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(create_inputs(), tmp_path_factory.mktemp("run") / "report")


@pytest.mark.parametrize("width", [1280, 360])
def test_the_page_opens_without_network_or_errors(report, tmp_path, width):
    assert report.name == "index.html"
    assert report.stat().st_size <= 10 * 2**20
    page = report.read_text(encoding="utf-8")
    found, console = open_in_browser(page, tmp_path, width=width)
    assert console == []
    # 12 queries and 8 worst ones with 8 neighbours, the map, 3 triplets.
    assert found.pop("images") == 20 * 9 + 1 + 3 * 3
    assert found.pop("overflow") <= 0
    assert found.pop("folded") == [
        "6 more", "All 3 metrics on test", "All 1 metrics on validation", "Training",
        "Sampler", "Facts",
    ]  # fmt: skip
    # A table that goes on at the side says so.
    assert found.pop("scrolled") == found.pop("hints")
    assert found == dict(
        violations=[], errors=[], broken=0, unnamed=0, requests=[], repeated=[], cut=[]
    )


def test_the_browser_sees_what_is_wrong_with_a_page(tmp_path):
    page = (
        "<!doctype html><html><head><meta charset='utf-8'>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; "
        "style-src 'unsafe-inline'; img-src data:\"></head>"
        "<body id='a'><p id='a' style='width:3000px'>x</p>"
        "<img src='http://127.0.0.1:9/x.png'><img src='data:image/png;base64,AAAA'>"
        "<script>console.error('help')</script></body></html>"
    )
    found, console = open_in_browser(page, tmp_path)
    assert found["violations"] == ["http://127.0.0.1:9/x.png"]
    assert found["broken"] == found["unnamed"] == found["images"] == 2
    assert found["repeated"] == ["a"]
    assert found["overflow"] > 1000
    assert any("help" in line for line in console)


def create_small_inputs(**changes):
    """Inputs of a page that takes less time: four images, no charts, no triplets."""
    few = dict(ok=np.arange(60) < 4, metrics=[], drawn=None)
    return create_inputs(**(few | changes))


def test_pictures_come_before_what_experts_read(report):
    page = report.read_text(encoding="utf-8")
    order = [
        'class="verdict"', 'class="tile"', 'id="queries"', 'id="run"', 'id="numbers"',
        'id="worst"', 'id="map"', 'id="curves"', 'id="sampler"', 'id="facts"',
    ]  # fmt: skip
    places = [page.index(part) for part in order]
    assert places == sorted(places)


def test_a_wide_table_scrolls_in_its_box_and_says_so(tmp_path):
    systems = dict(model=0.75, untrained=0.25, frozen=0.6, pixels=0.5)
    results = {"test": {"retrieval": {"recall@1": systems}}}
    inputs = create_small_inputs(results=results, title="a" * 80)
    page = _page_of(inputs, tmp_path)
    narrow, _ = open_in_browser(page, tmp_path, width=360)
    assert narrow["overflow"] <= 0
    assert narrow["cut"] == []
    assert narrow["scrolled"] == narrow["hints"] == 2


@pytest.mark.parametrize("width", [1280, 360])
def test_reconstructions_stand_below_their_images(tmp_path, width):
    indices = np.array([3, 0, 2])
    rows = {
        title: np.full((3, size, size, 3), value, np.uint8)
        for title, size, value in (("image", 48, 40), ("restored", 24, 90))
    }
    reconstructions = Reconstructions(indices=indices, rows=rows)
    page = _page_of(create_small_inputs(reconstructions=reconstructions), tmp_path)
    section = page.split('id="reconstructions"')[1].split("</section>")[0]
    encoded = re.findall(r'src="data:image/webp;base64,([^"]*)" alt="([^"]*)"', section)
    records = create_records()
    assert [html.unescape(alt) for _, alt in encoded] == [
        f"{records.label_name(index)}, {title}" for title in rows for index in indices
    ]
    for place, (code, _) in enumerate(encoded):
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(code), np.uint8), 1)
        assert picture.shape[0] == picture.shape[1] == 112
        assert abs(picture.mean() - (40, 90)[place // 3]) < 3
    found, console = open_in_browser(page, tmp_path, width=width)
    assert (console, found["cut"], found["unnamed"]) == ([], [], 0)
    assert found["overflow"] <= 0
    without = _page_of(create_small_inputs(), tmp_path)
    assert "Reconstructions" not in without


def test_pictures_link_to_the_files_of_images(tmp_path):
    """Names that mean something in an address are escaped."""
    folder = tmp_path / "a b#1"
    names = [os.fsdecode(b"\xff.png"), *(f"c: 50% ü?&{i}.png" for i in range(59))]
    records = dataclasses.replace(
        create_records(), path=lambda index: str(folder / names[index])
    )
    # So many that there is a map.
    inputs = create_small_inputs(records=records, ok=np.arange(60) < 6)
    report = write_report(inputs, tmp_path / "run" / "report")
    page = report.read_text(encoding="utf-8")
    addresses = [html.unescape(x) for x in re.findall(r'href="(\.\.[^"]*)"', page)]
    assert len(addresses) == (6 + 2) * 6 + 6
    files = {
        os.path.normpath(os.path.join(os.fsencode(report.parent), name))
        for name in map(urllib.parse.unquote_to_bytes, addresses)
    }
    assert files == {os.fsencode(folder / name) for name in names[:6]}
    for address in addresses:
        parts = urllib.parse.urlsplit(address)
        assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("",) * 4
    assert 'href=".' not in _page_of(create_small_inputs(), tmp_path)


def test_levels_are_called_by_their_titles(tmp_path):
    titles = ("level-1 folder", "level-2 folder", "folder")
    names = ("level_1", "level_2", "level_3")
    records = dataclasses.replace(
        create_records(), level_names=names, level_titles=titles
    )
    shares = {f"train/positives/{name}": 0.25 for name in ("none", *names)}
    metrics = [{"step": 1, **shares}]
    # Of one class, of one group, and of another category.
    ok = np.isin(np.arange(60), [0, 1, 4, 30])
    inputs = create_small_inputs(records=records, metrics=metrics, ok=ok)
    page = _page_of(inputs, tmp_path)
    assert "level_" not in page
    for words in ("same level-2 folder", "same folder", "another level-1 folder"):
        assert page.count(words) >= 2


def test_commands_are_whole_words_and_whole_lines(tmp_path):
    commands = {"Export it": "deeprank export --workdir='a b' --out=<m>"}
    page = _page_of(create_small_inputs(next_commands=commands), tmp_path)
    box = re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)[1]
    text = html.unescape(re.sub(r"<.*?>", "", box))
    assert text.split("\n") == ["# Export it", commands["Export it"]]


def test_names_are_text_and_never_markup(report):
    page = report.read_text(encoding="utf-8")
    assert "<img src=x>" not in page
    assert "fox &lt;img src=x&gt; &amp; &#34;friends&#34; 狐" in page
    assert "--config=&#39;a</span> <span>&lt;b&gt;&#39;" in page
    assert "<script" not in page


def test_a_name_that_is_not_utf8_is_shown_by_its_escapes(tmp_path):
    """A file name of old bytes comes from Python as lone surrogates."""
    records = create_records()
    old = os.fsdecode(b"f\xfcchse")
    names = (*records.label_names[:2], (old, *records.label_names[2][1:]))
    records = dataclasses.replace(
        records, label_names=names, describe=lambda index: f"{old}/{index}.png"
    )
    inputs = create_inputs(records=records, drawn=None, title=old)
    page = write_report(inputs, tmp_path).read_text(encoding="utf-8")
    assert "<title>f\\udcfcchse" in page
    assert "f\\udcfcchse/0.png" in page


def test_the_same_inputs_give_the_same_page(report, tmp_path):
    again = write_report(create_inputs(), tmp_path / "other.html")
    assert again == tmp_path / "other.html"
    assert again.read_bytes() == report.read_bytes()


def test_numbers_and_the_best_of_each_row(report):
    page = report.read_text(encoding="utf-8")
    assert page.count('<td class="best">0.750</td>') == 3
    assert "<td>0.250</td>" in page
    assert "<td>\N{MINUS SIGN}1,234</td>" in page
    assert "<td>\N{EN DASH}</td>" in page
    assert "<td>60</td>" in page
    assert page.index("test · retrieval") < page.index("validation · retrieval")


def test_how_sure_a_number_is_stands_below_it(tmp_path):
    ends = {
        "model": {"low": 0.7, "high": 0.8},
        "untrained": {"low": 0.2, "high": 0.3, "model_better_by": [0.5, 0.4, 0.6]},
    }
    score = {
        "model": {"low": -1300.0, "high": -1100.0},
        "pixels": {"low": 0.0, "high": 0.0, "model_better_by": [-12.0, -1234.4, 5.0]},
    }
    intervals = {
        "test": {"retrieval": {"recall@1": ends}, "triplets": {"score_at_30": score}}
    }
    inputs = create_small_inputs(intervals=intervals)
    page = write_report(inputs, tmp_path).read_text(encoding="utf-8")
    page, minus = page.replace("\N{NO-BREAK SPACE}", " "), "\N{MINUS SIGN}"
    assert '<td class="best">0.750<small>[0.700, 0.800]</small></td>' in page
    assert "<td>0.250<small>+0.500 [+0.400, +0.600]</small></td>" in page
    assert f"<td>{minus}1,234<small>[{minus}1,300, {minus}1,100]</small></td>" in page
    assert f"<small>{minus}12 [{minus}1,234, +5]</small>" in page
    # Those of recall@1 are in the first table, too.
    assert page.count("</small></td>") == 6
    assert "its 95 % interval" in page
    assert "its 95 % interval" not in _page_of(create_small_inputs(), tmp_path)
    empty = {"test": {"retrieval": {"recall@1": {}}}}
    few = _page_of(create_small_inputs(intervals=empty), tmp_path)
    assert "its 95 % interval" not in few
    assert "</small></td>" not in few


def _page_of(inputs, tmp_path):
    return write_report(inputs, tmp_path).read_text(encoding="utf-8")


def test_what_people_rated_has_a_headline_of_its_own(tmp_path):
    results = {
        "test": {
            "triplets": {"precision": dict(model=0.875)},
            "rated": {"precision": dict(model=0.625), "recall@1": dict(model=0.1)},
        }
    }
    meanings = {"rated/precision": "Share of rated triplets in order."}
    inputs = create_small_inputs(results=results, meanings=meanings)
    page = write_report(inputs, tmp_path).read_text("utf-8")
    tiles = re.findall(r'class="name">(.*?)<.*?class="value">(.*?)<', page, re.S)
    assert tiles == [("precision", "0.875"), ("rated precision", "0.625")]
    # Below the number of the tile, in the first table and in that of all metrics.
    assert page.count("Share of rated triplets in order.") == 3


@pytest.mark.parametrize("num_records", [0, 1, 2, 4, 9])
def test_a_small_or_unreadable_split_still_gives_a_report(num_records, tmp_path):
    ok = np.arange(60) < num_records
    inputs = create_inputs(results={}, metrics=[], drawn=None, ok=ok)
    inputs.embeddings[~ok] = np.nan
    page = write_report(inputs, tmp_path).read_text(encoding="utf-8")
    assert ("Queries and their nearest" in page) == (num_records > 1)
    assert ("Map of the embedding" in page) == (num_records >= 5)


@pytest.mark.parametrize("dim", [1, 8])
def test_a_collapsed_embedding_still_gives_a_report(dim, tmp_path):
    """When all embeddings are equal a report is needed most."""
    inputs = create_inputs(embeddings=np.ones((60, dim), np.float32), drawn=None)
    page = write_report(inputs, tmp_path).read_text(encoding="utf-8")
    assert "Map of the embedding" in page


def test_thumbnails_are_shrunk_before_they_are_embedded(tmp_path):
    large = np.zeros((60, 300, 200, 3), np.uint8)
    inputs = create_inputs(thumbnails=lambda indices: large[indices], drawn=None)
    page = write_report(inputs, tmp_path).read_text(encoding="utf-8")
    source = re.search(r'src="data:image/webp;base64,([^"]+)" alt="class', page)[1]
    data = np.frombuffer(base64.b64decode(source), np.uint8)
    assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape == (112, 112, 3)


def test_every_field_of_the_inputs_is_explained():
    for kind in ReportInputs, DrawnTriplets:
        for field in dataclasses.fields(kind):
            assert re.search(rf"^\s+{field.name}: ", kind.__doc__, re.MULTILINE)


def test_the_template_is_part_of_the_package():
    folder = pathlib.Path(page_module.__file__).parent
    assert (folder / "page.html").exists()
