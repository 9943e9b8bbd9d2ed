"""Every command in the README works, with sizes shrunk where it trains."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
import shrunk

ROOT = pathlib.Path(__file__).parents[1]
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


@pytest.mark.parametrize("line", [x for x in LINES if "pip install" in x])
def test_what_pip_installs_is_there(line):
    (name,) = re.findall(r"-r (\S+)", line)
    assert "--hash=sha256:" in (ROOT / name).read_text()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


PYTHON_LINES = [x for x in LINES if x.startswith("python -m ")]
TRAINING = [x for x in PYTHON_LINES if "deeprank_jax.main" in x]


@pytest.mark.parametrize("line", dict.fromkeys(PYTHON_LINES))
def test_python_commands_run(line, data_dir, workdir):
    if "-m pip" in line:
        return  # Its lock file is looked at above.
    words = shlex.split(line)
    extra = []
    if line in TRAINING:
        extra = [f"--workdir={workdir / str(TRAINING.index(line))}", *shrunk.flags()]
    if "configs/folder.py" in line:
        # As many levels of folders as the command has relevances.
        graded = "hierarchy" in line
        photos = data_dir / ("graded" if graded else "flat")
        if not photos.exists():
            shrunk.write_images(photos / "coarse" if graded else photos)
        extra += [f"--config.data.dir={photos}"]
    else:
        extra += [f"--config.data.dir={data_dir / 'tfds'}"]
    done = subprocess.run(
        [sys.executable, *words[1:], *extra],
        cwd=ROOT,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
