"""Runs every test on four simulated CPU devices, with JAX at its strictest."""

from deeprank_jax.distributed import backend

backend.configure_backend()

from absl import logging  # noqa: E402
import jax  # noqa: E402  It reads its flags when it starts.
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def warnings_logged(monkeypatch):
    logged = []
    log = lambda message, *args: logged.append(message % args)
    monkeypatch.setattr(logging, "warning", log)
    return logged


pytest_plugins = ["helpers.exported"]
