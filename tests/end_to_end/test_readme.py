"""Every command in the README works, with sizes shrunk where it trains."""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib

from helpers import shrunk
from helpers.commands import run_command
import pytest

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [README, *(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))]
BLOCKS = [
    block
    for page in PAGES
    for block in re.findall(r"^```bash\n(.*?)^```", page, flags=re.M | re.S)
]
LINES = [
    " ".join(line.split())
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]


def test_the_readme_is_short_and_has_commands():
    assert len(README.splitlines()) < 150
    assert {"make demo", "make test"} <= set(LINES)


def test_every_link_to_a_file_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", README)
    files = [a or b for a, b in links if not (a or b).startswith("http")]
    assert files
    assert [name for name in files if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("line", [x for x in LINES if x.startswith("make ")])
def test_make_knows_the_target(line):
    done = subprocess.run([*shlex.split(line), "-n"], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "line", [x for x in LINES if "pip install" in x and "-e ." not in x]
)
def test_what_pip_installs_is_there(line):
    if extra := re.fullmatch(r"(?:python -m )?pip install '\.\[(\w+)\]'", line):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert extra[1] in project["optional-dependencies"]
        return
    (name,) = re.findall(r"-r (\S+)", line)
    assert "--hash=sha256:" in (ROOT / name).read_text()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


# Commands that take minutes, and commands that use a model: the tests that run them.
ELSEWHERE = {
    "ablation": "test_ablation",
    "rejudge": "test_ablation",
    "paper-table": "test_paper_table",
    "tools.benchmark": "test_benchmark",
    **dict.fromkeys(
        ("export", "embed", "compare", "index", "search", "rank", "duplicates",
         "clusters", "label-errors", "between", "tile-map"),
        "test_commands",
    ),
    **dict.fromkeys(("train-similarity", "axioms"), "test_train_similarity"),
    "evaluate": "test_evaluate",
    "doctor": "test_doctor",
    "configs": "test_configs",
    "compare-runs": "test_compare_runs",
}  # fmt: skip
# Arguments that make the others short.
SHORT = {
    "golden-feature": ["--image_size=16", "--features=pixels,lab_histogram"],
    "triplets": ["--config.batch_size=8"],
    "train": shrunk.flags(),
}


def commands(block):
    """Returns the block's `deeprank` and `python -m` lines that are run here.

    Each is a name, as in `ELSEWHERE`, and the words of the command line.
    """
    pairs = []
    for line in block.replace("\\\n", " ").splitlines():
        words = (
            shlex.split(line) if line.startswith(("deeprank ", "python -m ")) else []
        )
        if words[:1] == ["deeprank"]:
            pairs.append((words[1], words))
        elif words[2:3] == ["deeprank_jax.main"]:
            pairs.append(("train", ["deeprank", "train", *words[3:]]))
        elif words and words[2] != "pip":
            pairs.append((words[2], words))
    return [(name, words) for name, words in pairs if name not in ELSEWHERE]


def run(words, folder):
    """Runs the words of a command line in a folder."""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    if words[0] == "deeprank":
        return run_command(words[1:], folder=folder, environment=environment)
    return subprocess.run(
        [sys.executable, *words[1:]],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def with_short_stage(words, folder):
    """Returns the words with a config of few steps in the place of a first stage."""
    option = "--config.first_stage="
    words = list(words)
    for i, word in enumerate(words):
        if word.startswith(option):
            name = word.removeprefix(option)
            (folder / "short.py").write_text(
                f"from deeprank_jax.configs import {name}\n\n\n"
                "def get_config():\n"
                f"    config = {name}.get_config()\n"
                "    config.num_steps, config.batch_size, config.eval_every = 4, 8, 4\n"
                "    config.schedule.warmup_steps = 1\n"
                "    return config\n"
            )
            words[i] = f"{option}{folder / 'short.py'}"
    return words


@pytest.fixture
def folder(tmp_path):
    """A folder in which the commands find the project, and leave what they write."""
    for name in ("configs", "deeprank_jax", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.parametrize(
    "block", [x for x in dict.fromkeys(BLOCKS) if commands(x)], ids=lambda x: x[:60]
)
def test_commands_run(block, folder, data_dir, few_digits, few_emoji, few_photos):
    page = (ROOT / "docs" / "extending.md").read_text("utf-8")
    loss = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)[0]
    (folder / "mine.py").write_text(loss)
    for name, words in commands(block):
        extra = list(SHORT.get(name, ()))
        if {"--config=folder", "--config=unlabelled", "--config=pairs"} & {*words}:
            # As many levels of folders as the command has relevances.
            graded = any("hierarchy" in word for word in words)
            photos = data_dir / ("graded" if graded else "flat")
            if not photos.exists():
                shrunk.write_images(photos / "coarse" if graded else photos)
            extra += [f"--config.data.dir={photos}"]
            if any("data.teacher" in word for word in words):
                shrunk.write_teacher(folder / "teacher.parquet", photos)
        else:
            few = {
                "--config=digits_attributes": few_digits,
                "--config=photo_views": few_photos,
            }
            if "--config=tiles" in words:
                sides = [w.split("=")[1] for w in words if "source.tile=" in w]
                large = few["--config=tiles"] = folder / "large"
                shrunk.write_large_images(large, tile=int((*sides, 32)[0]))
            images = next((few[word] for word in words if word in few), few_emoji)
            extra += [f"--config.data.dir={images}"]
        done = run([*with_short_stage(words, folder), *extra], folder)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_other_commands_have_a_test_of_their_own(name):
    if name not in {line.split()[1] for line in LINES if line.startswith("deeprank ")}:
        return
    paths = (ROOT / "tests").rglob(f"{ELSEWHERE[name]}.py")
    assert any(f'"{name}"' in path.read_text() for path in paths)
