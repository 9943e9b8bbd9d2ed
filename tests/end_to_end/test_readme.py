"""Every command in the README works, with sizes shrunk where it trains."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

from helpers import shrunk
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
    (name,) = re.findall(r"-r (\S+)", line)
    assert "--hash=sha256:" in (ROOT / name).read_text()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


# Minutes long; these tests run them shrunk.
ELSEWHERE = {
    "deeprank_jax.experiments.ablation": "test_ablation",
    "tools.benchmark": "test_benchmark",
    "deeprank_jax.experiments.paper_table.run": "test_paper_table",
}
# What makes the others short.
SHORT = {
    "deeprank_jax.cli.golden_feature": [
        "--image_size=16",
        "--features=pixels,lab_histogram",
    ],
    "deeprank_jax.cli.triplets": ["--config.batch_size=8"],
}


def commands(block):
    """The block's `python -m` lines as words, but for those of pip."""
    lines = " ".join(block.replace("\\\n", " ").split(" ")).splitlines()
    words = [shlex.split(line) for line in lines if line.startswith("python -m ")]
    return [line for line in words if line[2] not in ("pip", *ELSEWHERE)]


@pytest.fixture
def folder(tmp_path):
    """A folder in which the commands find the project, and leave what they write."""
    for name in ("configs", "deeprank_jax", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.parametrize(
    "block", [x for x in dict.fromkeys(BLOCKS) if commands(x)], ids=lambda x: x[:60]
)
def test_python_commands_run(block, folder, data_dir):
    for words in commands(block):
        extra = list(SHORT.get(words[2], ()))
        if words[2] == "deeprank_jax.main":
            extra += shrunk.flags()
        if "--config=configs/folder.py" in words:
            # As many levels of folders as the command has relevances.
            graded = any("hierarchy" in word for word in words)
            photos = data_dir / ("graded" if graded else "flat")
            if not photos.exists():
                shrunk.write_images(photos / "coarse" if graded else photos)
            extra += [f"--config.data.dir={photos}"]
        else:
            extra += [f"--config.data.dir={data_dir / 'tfds'}"]
        done = subprocess.run(
            [sys.executable, *words[1:], *extra],
            cwd=folder,
            env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_long_commands_have_a_test_of_their_own(name):
    [path] = (ROOT / "tests").rglob(f"{ELSEWHERE[name]}.py")
    test = path.read_text()
    assert name.rsplit(".", 1)[1] in test
