"""The wheel in an empty environment, away from the checkout: train, export, search."""

import json
import pathlib
import subprocess
import sys
import tarfile
import zipfile

from helpers import shrunk
import pytest

ROOT = pathlib.Path(__file__).parents[2]
UV = [sys.executable, "-m", "uv"]
NAME = "deeprank_jax"


def run(*words, cwd, timeout=600):
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Returns a folder with the sdist and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(*UV, "build", "--quiet", "--out-dir", folder, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(dist):
    [path] = dist.glob("*.whl")
    return path


def tracked(folder):
    """Returns the files of a folder that git knows, relative to it."""
    files = run("git", "ls-files", folder, cwd=ROOT).splitlines()
    return {str(pathlib.Path(file).relative_to(folder)) for file in files}


def test_the_wheel_holds_all_files_of_the_package(wheel):
    files = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"{NAME}/{file}" for file in tracked(NAME)}
    expected |= {f"{NAME}/configs/{file}" for file in tracked("configs")}
    assert {f"{NAME}/py.typed", f"{NAME}/configs/base.py"} <= expected
    assert expected - files == set()
    others = {file for file in files - expected if ".dist-info/" not in file}
    assert others == set()


def test_the_sdist_holds_what_a_build_and_the_tests_need(dist):
    [path] = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    expected = {f"tests/{file}" for file in tracked("tests")}
    expected |= {f"configs/{file}" for file in tracked("configs")}
    expected |= {"Makefile", "requirements.txt", "setup.py", "CHANGELOG.md", "NOTICE"}
    assert expected - files == set()


@pytest.fixture(
    scope="module",
    params=["shared", pytest.param("installed", marks=pytest.mark.full)],
)
def bin_folder(request, wheel, tmp_path_factory):
    """Returns the programs of an environment with the wheel and the extra train.

    Dependencies come from this environment, whose editable install is not seen, or in
    the full variant from the registry.
    """
    venv = tmp_path_factory.mktemp("venv")
    run(*UV, "venv", "--quiet", "--clear", "--python", sys.executable, venv, cwd=venv)
    install = [*UV, "pip", "install", "--quiet", "--python", venv / "bin" / "python"]
    if request.param == "shared":
        run(*install, "--no-deps", wheel, cwd=venv)
        [site] = venv.glob("lib/python*/site-packages")
        folders = [x for x in sys.path if x.endswith("site-packages")]
        # A path file's folders are searched, but not their own path files.
        (site / "shared.pth").write_text("\n".join(folders) + "\n")
    else:
        run(*install, f"{wheel}[train]", cwd=venv)
    return venv / "bin"


@pytest.mark.slow
def test_the_wheel_trains_exports_indexes_and_searches(bin_folder, tmp_path):
    deeprank = bin_folder / "deeprank"
    place = "import deeprank_jax, deeprank_jax.configs as c; print(c.__file__)"
    configs = run(bin_folder / "python", "-c", place, cwd=tmp_path)
    assert str(bin_folder.parent) in configs
    shrunk.write_images(tmp_path / "photos", num_classes=6, num_images=6)
    run(
        deeprank, "train", "--config=folder", "--config.data.dir=photos",
        "--workdir=run", *shrunk.flags(), cwd=tmp_path,
    )  # fmt: skip
    assert (tmp_path / "run" / "report" / "index.html").stat().st_size > 5_000
    run(deeprank, "export", "--workdir=run", "--out=model", cwd=tmp_path)
    run(
        deeprank, "index", "photos", "--model=model", "--out=photos.index",
        cwd=tmp_path,
    )  # fmt: skip
    query = sorted((tmp_path / "photos").rglob("*.png"))[3]
    printed = run(
        deeprank, "search", query, "--index=photos.index", "--json", cwd=tmp_path
    )
    assert query.name in json.dumps(json.loads(printed))


@pytest.mark.slow
def test_a_config_file_elsewhere_imports_those_of_the_wheel(bin_folder, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from deeprank_jax.configs import base\n\n\n"
        "def get_config():\n"
        "    config = base.get_config()\n"
        "    config.num_steps = 7\n"
        "    return config\n"
    )
    program = (
        "from deeprank_jax import config\n"
        "print(config.load_config('mine.py', []).num_steps)"
    )
    assert run(bin_folder / "python", "-c", program, cwd=tmp_path) == "7\n"
