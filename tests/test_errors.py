"""A missing extra is one sentence with the command that installs it."""

import sys

import pytest

from deeprank_jax import errors


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "optax", None)
    sentence = r"^optax is not .*'train': pip install 'deeprank-jax\[train\]'\.$"
    with (
        pytest.raises(errors.MissingExtraError, match=sentence),
        errors.needs_extra("train"),
    ):
        import optax  # noqa: F401


def test_a_missing_module_of_the_project_stays_a_bug():
    with pytest.raises(ModuleNotFoundError), errors.needs_extra("train"):
        import deeprank_jax.nothing  # noqa: F401
