"""The documentation builds, its links work, and its examples and numbers are right."""

import html
import html.parser
import inspect
import json
import os
import pathlib
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import types

import cv2
import numpy as np
import pytest

import deeprank_jax
from deeprank_jax import data, evaluation, losses, models, relevance
from deeprank_jax.cli import __main__
from deeprank_jax.cli.commands import list_commands
from deeprank_jax.distributed import backend
from deeprank_jax.inference import artifact
from deeprank_jax.registry import parameters_of
from deeprank_jax.sampling import create
from deeprank_jax.training import health, tasks

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {path.name: path.read_text("utf-8") for path in sorted(DOCS.glob("*.md"))}
PAGES["README.md"] = (ROOT / "README.md").read_text("utf-8")
WIDTHS = 1280, 390


def blocks(language):
    return [
        (name, block)
        for name, page in PAGES.items()
        for block in re.findall(rf"^```{language}\n(.*?)^```", page, re.M | re.S)
    ]


def commands():
    """Returns every line of every bash block, as words."""
    return [
        (name, shlex.split(line))
        for name, block in blocks("bash")
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip()
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={folder}"],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


class Targets(html.parser.HTMLParser):
    """Links, loaded files and anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.anchors = [], [], set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors.update(filter(None, [values.get("id")]))
        self.links += [values["href"]] if tag == "a" and "href" in values else []
        if tag in ("img", "script", "iframe"):
            self.loaded += [values["src"]] if "src" in values else []
        elif tag == "link" and values.get("rel") not in (
            "canonical",
            "prev",
            "next",
        ):
            self.loaded.append(values["href"])


def test_every_page_is_built(site):
    built = {path.name for path in site.glob("*.html")}
    expected = {name.replace(".md", ".html") for name in PAGES} - {"README.html"}
    assert built == {*expected, "404.html"}
    assert len(expected) >= 12


def test_every_link_and_anchor_has_a_target(site):
    pages = {path: Targets(path) for path in site.glob("*.html")}
    num_anchors = 0
    for path, page in pages.items():
        if path.name == "404.html":  # Its links are relative to a server's root.
            continue
        for link in page.links:
            if link.startswith("https://"):
                continue
            file, _, anchor = link.partition("#")
            target = (path.parent / file).resolve() if file not in ("", ".") else path
            assert target.exists(), f"{path.name}: {link}"
            if anchor:
                assert anchor in pages[target].anchors, f"{path.name}: {link}"
                num_anchors += target != path
    assert num_anchors > 10


def test_nothing_is_fetched_from_elsewhere(site):
    for path in site.glob("*.html"):
        loaded = Targets(path).loaded
        assert loaded
        assert [x for x in loaded if re.match(r"(https?:)?//", x)] == [], path.name
    styles = [path.read_text("utf-8") for path in site.rglob("*.css")]
    assert styles
    assert not any(re.search(r"(url\(|@import)\W*(https?:)?//", x) for x in styles)


# Reports the state of a page to the page around it: errors, and elements too wide.
PROBE = """<script>
const failed = [];
addEventListener("error", e => failed.push(e.message || e.target.src), true);
addEventListener("unhandledrejection", e => failed.push(String(e.reason)));
const scrolls = e => {
  for (; e && e !== document.body; e = e.parentElement)
    if (/auto|scroll/.test(getComputedStyle(e).overflowX)) return true;
  return false;
};
addEventListener("load", () => setTimeout(() => {
  const width = document.documentElement.clientWidth;
  const inside = [...document.querySelectorAll(".md-content *, .md-header *")];
  const wide = inside.filter(
    e => e.getBoundingClientRect().right > width + 1 && !scrolls(e));
  const images = [...document.images];
  parent.postMessage({
    page: location.pathname.split("/").pop() + location.search, failed,
    width: innerWidth,
    overflow: document.documentElement.scrollWidth - width,
    wide: wide.map(e => e.tagName + " " + e.className).slice(0, 5),
    broken: images.filter(i => !i.naturalWidth).map(i => i.src),
    unnamed: images.filter(i => !i.alt).length,
    num_results: document.querySelectorAll(".md-search-result__item").length,
  }, "*");
}, 1500));
</script>
"""
FRAMES = """<!doctype html><meta charset="utf-8"><title>frames</title>
<script>
const reports = [];
addEventListener("message", e => {
  if (!e.data.page) return;
  reports.push(e.data);
  document.querySelector("pre").textContent = JSON.stringify(reports);
});
</script>
<pre></pre>
"""


@pytest.fixture(scope="module")
def reports(site, tmp_path_factory):
    """Returns the report of each page at each width, and the lines of the console.

    All are frames of one page: browsers open no window as narrow as a telephone.
    """
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if browser is None:
        assert os.environ.get("CI") != "true", "CI must have a browser"
        pytest.skip("neither chromium nor google-chrome is installed")
    folder = tmp_path_factory.mktemp("browser")
    copied = shutil.copytree(site, folder / "site")
    (copied / "404.html").unlink()
    names = sorted(path.name for path in copied.glob("*.html"))
    for name in names:
        page = (copied / name).read_text("utf-8")
        assert "<meta charset" in page
        page = page.replace("<meta charset", PROBE + "<meta charset", 1)
        (copied / name).write_text(page, "utf-8")
    frames = [(name, width) for width in WIDTHS for name in names]
    frames.append(("index.html?q=threshold", WIDTHS[0]))
    text = "\n".join(
        f'<iframe src="{name}" width="{width}" height="900"></iframe>'
        for name, width in frames
    )
    (copied / "frames.html").write_text(FRAMES + text, "utf-8")
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-sync"
    flags += " disable-background-networking disable-component-update dump-dom"
    flags += " enable-logging=stderr v=0 virtual-time-budget=20000"
    done = subprocess.run(
        [
            browser, *(f"--{flag}" for flag in flags.split()),
            f"--user-data-dir={folder / 'profile'}",
            (copied / "frames.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    result = re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    assert result, done.stderr
    assert result[1], done.stderr
    pages = json.loads(html.unescape(result[1]))
    assert len(pages) == len(frames), done.stderr
    return pages, re.findall(r".*CONSOLE.*", done.stderr)


def test_pages_open_without_errors(reports):
    pages, console = reports
    assert console == []
    for page in pages:
        assert page["failed"] == [], page
        assert page["broken"] == [], page
        assert page["unnamed"] == 0, page


def test_nothing_is_wider_than_the_page(reports):
    pages, _ = reports
    assert {page["width"] for page in pages} == set(WIDTHS)
    for page in pages:
        assert page["overflow"] <= 0, page
        assert page["wide"] == [], page


def test_the_search_works_without_a_server(reports):
    (page,) = (page for page in reports[0] if "?q=" in page["page"])
    assert page["num_results"] >= 2


def test_every_command_is_run_by_a_test():
    """test_readme runs `make`, pip and `python -m` lines."""
    known = ("make", "python", "deeprank")
    for name, words in commands():
        if words != ["source", ".venv/bin/activate"]:
            assert words[0] in known, f"{name}: {shlex.join(words)}"
        if words[0] == "python" and words[1] != "-m":
            assert words[1] == artifact.USE, f"{name}: {shlex.join(words)}"
            assert len(words) in (4, 5)
            assert words[4:] in ([], ["onnx"])


def test_the_command_line_takes_every_command():
    names = set()
    for name, words in commands():
        if words[0] == "deeprank":
            try:
                parser = __main__.create_parser(words[1])
                names.add(parser.parse_args(words[1:]).command)
            except SystemExit:
                pytest.fail(f"{name}: {shlex.join(words)}")
    assert names >= {
        "export", "embed", "compare", "index", "search", "rank", "duplicates",
        "clusters",
    }  # fmt: skip


@pytest.mark.usefixtures("pretrained_folder")
def test_the_commands_that_use_a_model_work(exported, photos, tmp_path, monkeypatch):
    """Runs all of use.md but the export, which test_commands runs."""
    few = shutil.ignore_patterns("[2-9].png")
    for name in ("photos", "more_photos"):
        shutil.copytree(photos, tmp_path / name, ignore=few)
        for old, new in (("class 00", "robin"), ("class 01", "wren")):
            (tmp_path / name / old).rename(tmp_path / name / new)
    for name in ("a.jpg", "b.jpg", "query.jpg"):
        shutil.copy(next((tmp_path / "photos" / "robin").iterdir()), tmp_path / name)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "photos").symlink_to(exported)
    monkeypatch.setattr(backend, "keep_compiled", lambda: None)
    monkeypatch.chdir(tmp_path)
    written = set()
    for name, words in commands():
        if name == "use.md" and words[0] == "deeprank" and words[1] != "export":
            __main__.main(words[1:])
            written.update(x[6:] for x in words if x.startswith("--out="))
    assert len(written) >= 8
    assert [name for name in written if not (tmp_path / name).exists()] == []


def test_the_python_of_a_model_runs(exported, photos, tmp_path, monkeypatch, capsys):
    shutil.copytree(photos, tmp_path / "photos")
    paths = sorted(photos.rglob("*.png"))
    for name, path in zip(("a.jpg", "b.jpg", "query.jpg"), paths, strict=False):
        cv2.imwrite(str(tmp_path / name), cv2.imread(str(path)))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "photos").symlink_to(exported)
    monkeypatch.chdir(tmp_path)
    names = run_python("use.md")
    assert names["embeddings"].shape == (2, names["model"].embedding_dim)
    assert len(names["photos"]) == len(paths)
    assert len(names["groups"]) == 10
    printed = capsys.readouterr().out
    assert f"{names['comparison'].distance}" in printed
    assert f"{len(paths)} {len(paths)}\n" in printed
    assert names["result"][0].path in printed


def test_the_python_of_a_custom_relevance_runs(monkeypatch):
    monkeypatch.setattr(relevance.RELEVANCES, "_kinds", dict(relevance.RELEVANCES))
    config = run_python("relevance.md")["get_config"]()
    kind = relevance.create_relevance(config.relevance.name)
    x = np.array([[0], [1], [11], [6]])
    values = kind.pairwise(x[:1], x)
    np.testing.assert_allclose(values, np.exp([0.0, -1.0, -1.0, -6.0]), rtol=1e-6)


def test_the_python_that_lists_weights_runs(capsys):
    run_python("weights.md")
    assert re.search(r"^trunk/\S+ \(3, 3, 3, \d+\)$", capsys.readouterr().out, re.M)


def test_the_python_of_every_page_is_run_by_a_test():
    """test_split runs evaluation.md, and test_extending runs extending.md."""
    pages = {"use.md", "relevance.md", "weights.md", "evaluation.md", "extending.md"}
    assert {name for name, _ in blocks("python")} == pages


def run_python(name):
    names = {}
    for page, block in blocks("python"):
        if page == name:
            exec(block, names)
    return names


def test_the_table_of_an_exported_model_has_every_file(exported):
    table = PAGES["use.md"].split("## In Python")[0]
    for path in exported.iterdir():
        assert f"| `{path.name}` |" in table


def run_tool(name, *flags):
    done = subprocess.run(
        [sys.executable, "-m", f"tools.{name}", *flags],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("tool", "page"),
    [
        ("docs.command_reference", "commands.md"),
        ("docs.config_reference", "configuration.md"),
    ],
)
def test_a_reference_page_is_up_to_date(tool, page, tmp_path):
    run_tool(tool, f"--out={tmp_path / page}")
    written = (tmp_path / page).read_text("utf-8")
    assert written == PAGES[page], f"run `python -m tools.{tool}`"


def test_the_command_page_has_every_command_with_an_example():
    sections = PAGES["commands.md"].split("\n## ")[1:]
    assert [x.partition("\n")[0] for x in sections] == list(list_commands())
    for section in sections:
        name = section.partition("\n")[0]
        (example, *_) = re.findall(r"^```text\n(.*?)^```", section, re.M | re.S)
        line = example.replace("\\\n", " ").splitlines()[0]
        words = shlex.split(line)
        assert words[:2] == ["deeprank", name]
        __main__.create_parser(name).parse_args(words[1:])
        assert "| `--json` |" not in section


def keys_of_the_configuration():
    return re.findall(r"^\| `([a-z_0-9.]+)` \|", PAGES["configuration.md"], re.M)


# Sections whose kinds have options beside those of the defaults.
KINDS = {
    "data.source": data.SOURCES,
    "loss": losses.LOSSES,
    "loss.miner": losses.MINERS,
    "model.trunk": models.TRUNKS,
    "relevance": relevance.RELEVANCES,
    "sampler": create.SAMPLERS,
    "task": tasks.TASKS,
}


def test_every_config_key_of_a_page_exists():
    known = set()
    for key in keys_of_the_configuration():
        parts = key.split(".")
        known |= {".".join(parts[:i]) for i in range(1, len(parts) + 1)}
    for section, kinds in KINDS.items():
        known |= {f"{section}.{x}" for kind in kinds for x in kinds.options(kind)}
    for name, kind in evaluation.EVALUATORS.items():
        section = f"evaluation.evaluators.{name}"
        known |= {section, *(f"{section}.{x}" for x in parameters_of(kind))}
    for name, page in PAGES.items():
        if name != "extending.md":  # Its keys are those of its examples, run elsewhere.
            keys = set(re.findall(r"\bconfig\.([a-z_0-9.]*[a-z_0-9])", page))
            assert keys - known - {"json", "py"} == set(), name


def test_the_reference_has_every_public_name(site):
    anchors = Targets(site / "api.html").anchors
    names = {anchor.rpartition(".")[2] for anchor in anchors}
    text = PAGES["api.md"]
    for name in set(deeprank_jax.__all__) - {"__version__"}:
        assert name in names or f"`{name}`" in text, name
    paths = re.findall(r"^::: (\S+)$", text, re.M)
    assert len(paths) >= 18
    for path in paths:
        assert path in anchors or inspect.ismodule(pkgutil.resolve_name(path)), path
        for name in public_methods(pkgutil.resolve_name(path)):
            assert f"{path}.{name}" in anchors


def public_methods(value):
    if not inspect.isclass(value):
        return []
    kinds = (types.FunctionType, classmethod, property)
    names = [name for name, x in vars(value).items() if isinstance(x, kinds)]
    return [name for name in names if not name.startswith("_")]


def test_the_configuration_has_every_key_and_config():
    from deeprank_jax.configs import base

    page = PAGES["configuration.md"]
    documented = keys_of_the_configuration()
    assert len(documented) == len(set(documented))

    def keys(config, prefix=""):
        for key, value in config.items():
            section = hasattr(value, "items") and any(
                x.startswith(f"{prefix}{key}.") for x in documented
            )
            if section:
                yield from keys(value, f"{prefix}{key}.")
            else:
                yield prefix + key

    assert sorted(documented) == sorted(keys(base.get_config()))
    for path in (ROOT / "configs").glob("[!_]*.py"):
        assert f"### `configs/{path.name}`\n" in page
    for words in (
        "test Recall@1 .766",
        "test Recall@1 .832",
        "1.3 million photographs",
    ):
        assert words in page


def test_the_figures_are_up_to_date(tmp_path):
    run_tool("docs.figures", f"--out={tmp_path}")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(path.name for path in (DOCS / "images").iterdir())
    for name in names:
        committed = DOCS / "images" / name
        assert committed.stat().st_size < 100_000
        drawn = cv2.imread(str(tmp_path / name)).astype(int)
        assert np.abs(drawn - cv2.imread(str(committed))).mean() < 1
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 50


def test_every_warning_of_the_monitor_is_quoted():
    page = " ".join(
        re.sub(r"^> ?", "", PAGES["troubleshooting.md"], flags=re.M).split()
    )
    healthy = {
        "loss": 0.1,
        "active_share": 0.5,
        "mean_distance": 2,
        "effective_rank": 9,
    }
    symptoms = [
        {"mean_distance": 0.0}, {"effective_rank": 1.0}, {"active_share": 0.0},
        {"loss": 0.2, "active_share": 1.0}, {"sampler_failures/repeated": 8.0},
    ]  # fmt: skip
    for symptom in symptoms:
        monitor = health.TrainingMonitor(0.2, 10, patience=1)
        (text,) = monitor.observe({**healthy, **symptom})
        assert text in page


def test_every_quoted_message_is_in_the_code():
    page = PAGES["troubleshooting.md"]
    sources = (ROOT / "deeprank_jax").rglob("*.py")
    # As one line each, without the quotes at which strings are broken.
    code = "\n".join(
        re.sub(r'"\s+f?"', "", " ".join(path.read_text("utf-8").split()))
        for path in sources
    )
    tables = re.findall(r"^\| message \| cause[^\n]*\n(.*?)\n\n", page, re.M | re.S)
    quoted = re.findall(r"^\| `(.*?)` \|", "\n".join(tables), re.M)
    quoted += re.findall(r"^> (Lower .*)", page, re.M)
    assert (len(tables), len(quoted)) == (4, 29)
    for text in quoted:
        parts = [x.strip() for x in re.split("…|, then run", text) if x.strip(" :")]
        for part in parts:
            assert part.removesuffix(": config.") in code, part


@pytest.mark.parametrize(
    "name",
    [
        "ablation_sampling",
        "ablation_sampling_uniform_triplets",
        "ablation_multiscale",
        "ablation_multiscale_photos",
        "ablation_graded",
    ],
)
def test_the_ablations_agree_with_their_files(name):
    page = PAGES["results.md"]
    for metric, entry in json.loads((ROOT / "results" / f"{name}.json").read_text())[
        "test"
    ].items():
        show = show_count if metric.endswith("score_at_30") else show_share
        cells = []
        for arms, gap in entry["difference"].items():
            cells += [show(entry["mean"][arm]) for arm in arms.split(" - ")]
            low, high = show(gap["low"], "+"), show(gap["high"], "+")
            cells.append(f"{show(gap['mean'], '+')} [{low}, {high}]")
        rows = [
            [x.strip("* ") for x in line.split("|")][2:-1] for line in page.splitlines()
        ]
        assert rows.count(cells) == 1, (metric, cells)
        for seeds in zip(*entry["seeds"].values(), strict=True):
            assert f"| {' / '.join(map(show, seeds))} |" in page


def test_the_numbers_of_a_large_collection_agree_with_their_file():
    measured = json.loads((ROOT / "results/benchmark_collection.json").read_text())
    rows = measured["rows"]
    assert f"N = {rows:,}, D = 128" in PAGES["millions.md"]
    for cell in (
        f"{measured['disk_bytes_per_row'] * rows / 1e9:.2f} GB",
        f"{measured['rows_added_per_s']:,.0f} a second",
        f"{measured['exact_seconds_256_queries']:.1f} s",
        f"{measured['graph_bytes_per_row'] * rows / 1e9:.2f} GB",
        f"{measured['graph_build_seconds']:.0f} s",
        f"{measured['graph_first_answer_seconds']:.0f} s",
        f"{measured['graph_seconds_256_queries']:.2f} s",
        show_share(measured["graph_recall@10"]),
        f"{measured['peak_gib']:.1f} GiB",
    ):
        assert f"| {cell} |" in PAGES["millions.md"], cell


def test_the_table_of_levers_agrees_with_its_file():
    """A row for each arm: its differences to the first."""
    test = json.loads((ROOT / "results" / "ablation_levers.json").read_text())["test"]
    metrics = [
        "retrieval/recall@1", "retrieval/map@r", "triplets/precision",
        "retrieval/ndcg@10", "hierarchical/h_ap",
    ]  # fmt: skip
    rows = [[show_share(test[metric]["mean"]["base"]) for metric in metrics]]
    for arms in test[metrics[0]]["difference"]:
        gaps = [test[metric]["difference"][arms] for metric in metrics]
        cells = []
        for gap in gaps:
            mean, low, high = (show_share(gap[x], "+") for x in ("mean", "low", "high"))
            cells.append(f"{mean} [{low}, {high}]")
        rows.append(cells)
    page = PAGES["results.md"].split("## Ablation of the levers")[1].split("\n## ")[0]
    lines = [x for x in page.splitlines() if x.startswith("|")][2:]
    assert [[x.strip("* ") for x in y.split("|")][2:-1] for y in lines] == rows


def test_the_papers_table_agrees_with_its_file():
    from deeprank_jax.configs import paper_table_emoji

    table = json.loads((ROOT / "results" / "paper_table_emoji.json").read_text())
    metrics = {
        "triplets/precision": show_share,
        "triplets/score_at_30": show_count,
        "retrieval/recall@1": show_share,
        "retrieval/map@r": show_share,
    }
    best = {m: max(row["numbers"][m][0] for row in table["rows"]) for m in metrics}
    lines = PAGES["results.md"].splitlines()
    for row in table["rows"]:
        cells = [row["name"]]
        for metric, show in metrics.items():
            value = row["numbers"][metric][0]
            text = show(value)
            cells.append(f"**{text}**" if value == best[metric] else text)
        gap = row["difference"].get("triplets/precision")
        better = ""
        if gap is not None:
            value, low, high = (show_share(x, "+") for x in gap)
            better = f"{value} [{low}, {high}]"
        published = [
            show(row["published"][metric]) if metric in row["published"] else ""
            for metric, show in [*metrics.items()][:2]
        ]
        cells += [better, *published]
        assert f"|{'|'.join(f' {x} ' if x else ' ' for x in cells)}|" in lines
    for i, (share, _) in enumerate(table["sweeps"]["triplets/precision"]["uniform"]):
        cells = [f"{share:g}".removeprefix("0") or "0"]
        for metric, show in [*metrics.items()][:2]:
            points = [table["sweeps"][metric][x][i] for x in ("importance", "uniform")]
            cells += [show(number[0]) for _, number in points]
        assert f"| {' | '.join(cells)} |" in lines
    values = {x["name"]: x["numbers"]["triplets/precision"][0] for x in table["rows"]}
    expected = paper_table_emoji.__doc__.split("Expected: ")[1].split(";")[0]
    rows = ("Deep ranking", "Single-scale ranking", "OASIS", "Softmax, further", "HOG")
    quoted = re.findall(r"\.\d{3}", expected)
    assert quoted == [show_share(values[name]) for name in rows]
    readme = PAGES["README.md"].split("**The paper's table**")[1].split(";")[0]
    rows = ("Deep ranking", "OASIS", "Softmax, further", "HOG")
    quoted = re.findall(r"\.\d{3}", readme)
    assert quoted == [show_share(values[name]) for name in rows]
    text = " ".join(PAGES["results.md"].split())
    assert table["command"] in text
    minutes = float(table["facts"]["Hand-made part"].split()[0])
    assert f"{minutes:.0f} minutes of it" in text


def show_share(value, sign=""):
    return show_sign(value, sign) + f"{abs(value):.3f}".lstrip("0")


def show_count(value, sign=""):
    return show_sign(value, sign) + f"{abs(value):,.0f}"


def show_sign(value, sign):
    return "\N{MINUS SIGN}" if value < 0 else sign
