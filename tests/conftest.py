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

# Fixtures that train, export or start a browser, and modules that do so by themselves.
SLOW_FIXTURES = {"trained", "exported", "bin_folder"}
SLOW_MODULES = {
    "test_ablation", "test_benchmark", "test_benchmark_embed", "test_colab",
    "test_comparison", "test_configs", "test_contact_sheet", "test_demo", "test_docs",
    "test_export", "test_extending", "test_golden", "test_job", "test_json",
    "test_loop", "test_main", "test_page", "test_paper_outcome", "test_paper_systems",
    "test_paper_table", "test_protocol", "test_readme", "test_relevance_runs",
    "test_runs", "test_sampler_logging", "test_sampler_panel", "test_train",
    "test_two_stages",
}  # fmt: skip


def pytest_collection_modifyitems(items):
    for item in items:
        slow = SLOW_FIXTURES & set(item.fixturenames)
        if slow or item.path.stem in SLOW_MODULES:
            item.add_marker(pytest.mark.slow)
