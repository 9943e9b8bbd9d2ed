"""Each module imports only from the layers below its own, and knows its bans."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "deeprank_jax"
LAYERS = [
    {"errors", "version", "logs", "progress"},
    {"files", "registry"},
    {"checksums"},
    {"config"},
    {"descriptors", "losses", "models", "distributed"},
    {"data", "search"},
    {"relevance"},
    {"inference"},
    {"sampling"},
    {"baselines"},
    {"similarities"},
    {"evaluation"},
    {"report"},
    {"training"},
    {"export"},
    {"experiments"},
    {"cli"},
    {"main", "__init__"},
    {"configs"},
    {"tools", "colab"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
ONLY = {"flax": {"models", "similarities", "training"}}
FLAGS = ("absl.flags", "absl.app", "ml_collections.config_flags")
# logs only marks absl's flags as parsed.
MAY_READ_FLAGS = {"logs", "tools"}
NEVER = {"jax": {"data", "sampling", "relevance", "descriptors"}}


def imports_of(source, parents):
    """Yields every imported module as a dotted name, relative ones made absolute."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def violations(own, names):
    """Yields what of `names` a module of the part `own` may not import."""
    for name in names:
        root, *rest = name.split(".")
        allowed = ONLY.get(root, {own})
        flags = name.startswith(FLAGS) and own not in MAY_READ_FLAGS
        if own not in allowed or own in NEVER.get(root, ()) or flags:
            yield name
        other = rest[0] if root == "deeprank_jax" and rest else root
        if other in RANK and other != own and RANK[other] >= RANK[own]:
            yield name


def parts():
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE).parts
        yield relative[0].removesuffix(".py"), ["deeprank_jax", *relative[:-1]], path
    for folder in ("tools", "configs", "colab"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT).parts[:-1]
            yield folder, list(inside), path


@pytest.mark.parametrize(
    ("own", "parents", "path"), list(parts()), ids=lambda x: str(x).split("main/")[-1]
)
def test_imports_point_down(own, parents, path):
    names = list(imports_of(path.read_text(), parents))
    assert list(violations(own, names)) == []


@pytest.mark.parametrize(
    ("own", "source"),
    [
        ("losses", "import deeprank_jax.training"),
        ("losses", "from deeprank_jax import training"),
        ("losses", "from ..training import loop"),
        ("losses", "from .. import training"),
        ("evaluation", "from deeprank_jax.report import page"),
        ("data", "import jax.numpy as jnp"),
        ("report", "from flax import nnx"),
        ("training", "from absl import flags"),
        ("training", "from ml_collections import config_flags"),
        ("main", "import tools.docs"),
    ],
)
def test_every_form_of_a_wrong_import_is_seen(own, source):
    assert list(violations(own, imports_of(source, ["deeprank_jax", own])))


def test_no_file_is_a_drawer():
    names = {path.stem for path in PACKAGE.rglob("*.py")}
    assert not names & {"util", "utils", "helper", "helpers", "common", "misc"}
