"""Measures the code's words and sizes: `python -m tools.house --json=FILE`.

Part of `make lint`, which fails above the bars below. Measured are `deeprank_jax/`,
`configs/` and `tools/`, without the tests.
"""

import argparse
import ast
from collections.abc import Iterator
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("deeprank_jax", "configs", "tools")
BARS = {
    "question_docstrings": 0,
    "argument_docs_without_noun": 0.08,
    "happened_to_names": 0.001,
    "free_what_per_1000_words": 1.0,
    "any_per_1000_lines": 6.0,
    "largest_file": 450,
    "longest_function": 60,
    "loose_modules": 6,
}
# Names that say what happened to a value in place of what it is.
HAPPENED_TO = frozenset(
    "found told own kept judged asked given wanted said taken chosen drawn learned "
    "picked made done seen known shown left measured compared called".split()
)
# First words of an argument's doc that are no part of a noun phrase.
NO_NOUN = frozenset(
    "of as by for from to in on at with without within among between if is are was "
    "what which whether how where when who whom whose that this see maps takes gives "
    "returns says said must may can like one-of keeps makes does has have its only "
    "at wraps decides holds ends creates draws above up says tells reads "
    "multiplies stands looks means uses runs none nothing written read not and or "
    "before after called given drawn while so such".split()
)
_SHAPE = re.compile(
    r"^(?:`\[[^`]*`|\([^)]*\)|optional|[,;:.\s]|u?int\d*s?\b|bools?\b|float\d*s?\b|str\b)+"
)
_ENTRY = re.compile(r"^(\*{0,2}\w+): (.+(?:\n(?: {4,}.*)?)*)", re.M)


def main() -> None:
    """Writes the measurements as one flat object, and fails above a bar."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--json", type=pathlib.Path, help="a file to write them to")
    parser.add_argument(
        "--list", action="store_true", help="name each place that is counted"
    )
    options = parser.parse_args()
    values, places = measure(ROOT)
    if options.json:
        options.json.write_text(json.dumps(values, indent=2) + "\n")
    for place in places if options.list else ():
        print(place)
    for name, value in values.items():
        verdict = "ok" if value <= BARS[name] else "TOO HIGH"
        print(f"{name}: {value:g} (at most {BARS[name]:g}) {verdict}")
    if any(value > BARS[name] for name, value in values.items()):
        sys.exit("tools.house: above a bar; --list names the places.")


def measure(root: pathlib.Path) -> tuple[dict[str, float], list[str]]:
    """Measures a source tree.

    Args:
      root: Folder that holds `FOLDERS`.

    Returns:
      The measurements by name, and a line for each place that is counted.
    """
    paths = [p for folder in FOLDERS for p in sorted((root / folder).rglob("*.py"))]
    counts = dict.fromkeys(
        ("docs", "bad_docs", "names", "bad_names", "words", "what", "any", "lines"), 0
    )
    questions, longest, largest, places = 0, 0, 0, []
    for path in paths:
        source = path.read_text(encoding="utf-8")
        tree, name = ast.parse(source), path.relative_to(root)
        num_lines = source.count("\n")
        largest = max(largest, num_lines)
        counts["lines"] += num_lines
        if _is_question(ast.get_docstring(tree) or ""):
            questions += 1
            places.append(f"{name}:1: the module docstring is a question")
        for node in ast.walk(tree):
            line = getattr(node, "lineno", 0)
            length = _length(node)
            longest = max(longest, length)
            if length > BARS["longest_function"]:
                places.append(f"{name}:{line}: {length} lines long")
            counts["any"] += isinstance(node, ast.Name) and node.id == "Any"
            for target in _assigned_names(node):
                counts["names"] += 1
                if target.id.lstrip("_") in HAPPENED_TO:
                    line = target.lineno
                    counts["bad_names"] += 1
                    places.append(f"{name}:{line}: assigns to {target.id!r}")
            _measure_docstring(node, name, counts, places)
    loose = {p.stem for p in (root / "deeprank_jax").glob("*.py")}
    values = {
        "question_docstrings": questions,
        "argument_docs_without_noun": counts["bad_docs"] / max(1, counts["docs"]),
        "happened_to_names": counts["bad_names"] / max(1, counts["names"]),
        "free_what_per_1000_words": 1000 * counts["what"] / max(1, counts["words"]),
        "any_per_1000_lines": 1000 * counts["any"] / max(1, counts["lines"]),
        "largest_file": largest,
        "longest_function": longest,
        "loose_modules": len(loose - {"__init__", "main"}),
    }
    return {key: round(value, 5) for key, value in values.items()}, places


def _measure_docstring(
    node: ast.AST, name: pathlib.Path, counts: dict[str, int], places: list[str]
) -> None:
    """Adds a docstring's words and argument docs to the counts."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    if not isinstance(node, documented):
        return
    docstring = ast.get_docstring(node) or ""
    words = re.findall(r"[A-Za-z']+", re.sub(r"`[^`]*`", "", docstring))
    counts["words"] += len(words)
    num_what = sum(word.lower() == "what" for word in words)
    counts["what"] += num_what
    line = getattr(node, "lineno", 1)
    if num_what:
        places.append(f"{name}:{line}: 'what' in the docstring")
    for argument, doc in argument_docs(docstring):
        counts["docs"] += 1
        if not begins_with_noun(doc):
            counts["bad_docs"] += 1
            places.append(f"{name}:{line}: {argument}: {' '.join(doc.split())[:60]}")


def argument_docs(docstring: str) -> Iterator[tuple[str, str]]:
    """Yields name and text of each entry in the sections Args and Attributes."""
    for section in re.findall(
        r"^(?:Args|Attributes):\n((?:(?: {2,}.*)?\n?)+)", docstring, re.M
    ):
        entries = re.sub(r"^ {2}", "", section, flags=re.M)
        yield from _ENTRY.findall(entries)


def begins_with_noun(doc: str) -> bool:
    """Returns whether an argument's doc begins with a noun phrase.

    A leading shape, type or "optional" is passed over. Words cannot be parsed here,
    so the first one is looked up in a list of those that begin no noun phrase.
    """
    rest = _SHAPE.sub("", doc).strip()
    if rest.startswith("`"):  # A name.
        return True
    first = re.match(r"[\w'-]+", rest)
    return not rest or first is None or first[0].lower() not in NO_NOUN


def _is_question(docstring: str) -> bool:
    return "?" in re.sub(r"`[^`]*`", "", docstring.strip().split("\n")[0])


def _length(node: ast.AST) -> int:
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return 0
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _assigned_names(node: ast.AST) -> Iterator[ast.Name]:
    """Yields the plain names that a statement assigns to."""
    targets: list[ast.AST] = []
    if isinstance(node, ast.Assign):
        targets = list(node.targets)
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.For, ast.comprehension)):
        targets = [node.target]
    elif isinstance(node, ast.withitem) and node.optional_vars:
        targets = [node.optional_vars]
    for target in targets:
        for inner in ast.walk(target):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                yield inner


if __name__ == "__main__":
    main()
