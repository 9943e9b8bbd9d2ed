"""`deeprank doctor`: versions, extras and no personal data."""

import importlib.metadata
import json
import pathlib

import pytest

from deeprank_jax.cli import doctor
from deeprank_jax.cli.__main__ import main


@pytest.fixture
def report(monkeypatch, tmp_path):
    """Facts of an installation whose home folder is elsewhere."""
    home = tmp_path / "home" / "somebody"
    (home / ".cache" / "deeprank_jax" / "xla").mkdir(parents=True)
    (home / ".cache" / "deeprank_jax" / "xla" / "program").write_bytes(b"x" * 2**20)
    (home / "here").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to={home}/dump")
    monkeypatch.chdir(home / "here")
    return doctor.inspect_installation()


def test_versions_are_those_of_the_installed_packages(report):
    packages = report["packages"]
    assert packages["jax"] == importlib.metadata.version("jax")
    assert report["version"] == importlib.metadata.version("deeprank-jax")
    assert "cpu" in report["devices"]
    assert "usable of" in report["cores"]


def test_paths_under_the_home_folder_are_shortened(report):
    text = doctor.format_report(report)
    assert "somebody" not in text
    assert report["environment"]["XLA_FLAGS"] == "--xla_dump_to=~/dump"
    assert report["caches"] == {"~/.cache/deeprank_jax/xla": "0.0 GiB in 1 files"}
    assert report["free_disk"].keys() == {"~", "~/here"}


def test_a_missing_extra_gets_its_install_line(monkeypatch):
    requires = {
        "deeprank-jax": [
            "numpy>=2",
            'flax<0.13,>=0.12; extra == "train"',
            'deeprank-jax[train]; extra == "demo"',
            'emoji_pictures==1; extra == "demo"',
            "jax[rocm]; sys_platform == 'linux' and extra == 'rocm'",
        ],
        "jax": ["jaxlib", 'jax-rocm-plugin; extra == "rocm"'],
    }
    installed = {"deeprank-jax", "numpy", "flax", "jax", "jaxlib"}

    def version(name):
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(importlib.metadata, "requires", requires.get)
    monkeypatch.setattr(importlib.metadata, "version", version)
    assert doctor._extra("train") == "works"
    install = "pip install 'deeprank-jax[demo]'"
    assert doctor._extra("demo") == f"missing emoji_pictures: {install}"
    assert doctor._extra("rocm").startswith("missing jax-rocm-plugin: pip install")
    installed.remove("flax")
    assert doctor._extra("demo") == f"missing emoji_pictures, flax: {install}"


def test_jax_that_does_not_start_is_reported(monkeypatch):
    import jax

    def fail():
        raise RuntimeError("no driver")

    monkeypatch.setattr(jax, "local_devices", fail)
    assert doctor._devices() == "JAX does not start: RuntimeError: no driver"


def test_the_command_prints_text_or_json(capsys):
    main(["doctor"])
    text = capsys.readouterr().out
    assert "\npackages\n" in text
    assert str(pathlib.Path.home()) not in text
    main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["extras"]["train"] == "works"
