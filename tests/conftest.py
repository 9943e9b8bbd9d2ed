"""Runs every test on four simulated CPU devices, with JAX at its strictest."""

import gc
import os
import shutil
import tempfile

# Programs run for moments here, but compile for longer if XLA optimizes them; its newer
# emitters alone take half of that time. `make check-full` sets XLA's own level.
_LEVEL = "--xla_backend_optimization_level"
if _LEVEL not in os.environ.get("XLA_FLAGS", ""):
    quick = (
        f"{_LEVEL}=0 --xla_cpu_use_fusion_emitters=false "
        "--xla_cpu_parallel_codegen_split_count=1"
    )
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick}".strip()
# Tests run side by side, and threads that wait for work take the others' time.
for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")
# Every worker and every process that a test starts inherits these: a program is
# compiled once in a run of the tests, and a pretrained network exported once. The next
# run does so anew.
_CACHE = "JAX_COMPILATION_CACHE_DIR"
_OWN_CACHE = None
if _CACHE not in os.environ:
    _OWN_CACHE = tempfile.mkdtemp(prefix="deeprank_tests_")
    os.environ[_CACHE] = os.path.join(_OWN_CACHE, "xla")
    os.environ["XDG_CACHE_HOME"] = _OWN_CACHE
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

from absl import logging  # noqa: E402
import jax  # noqa: E402  It reads its flags when it starts.
import pytest  # noqa: E402

from deeprank_jax.distributed import backend  # noqa: E402
from deeprank_jax.registry import Registry  # noqa: E402

backend.configure_backend()
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def warnings_logged(monkeypatch):
    logged = []
    log = lambda message, *args: logged.append(message % args)
    monkeypatch.setattr(logging, "warning", log)
    return logged


pytest_plugins = [
    "helpers.digits",
    "helpers.emoji",
    "helpers.exported",
    "helpers.photo_views",
    "helpers.without_pictures",
]

# Fixtures that train, export or start a browser, and modules that do so by themselves.
# A single test that takes over a second has the mark `slow`.
SLOW_FIXTURES = {"trained", "exported", "bin_folder"}
SLOW_MODULES = {
    "test_ablation", "test_attributes_task", "test_autoencoder", "test_average",
    "test_benchmark", "test_benchmark_collection", "test_benchmark_embed",
    "test_benchmark_metrics", "test_benchmark_quality", "test_benchmark_search",
    "test_benchmark_step", "test_center", "test_class_vectors", "test_colab",
    "test_comparison", "test_configs", "test_contact_sheet", "test_core",
    "test_cpu_ops", "test_demo", "test_docs", "test_embedding_classes", "test_ensemble",
    "test_evaluate", "test_exact", "test_export", "test_extending", "test_extras",
    "test_faults", "test_first_stage", "test_golden", "test_hashing", "test_hnsw",
    "test_index_killed", "test_instance_discrimination", "test_job", "test_json",
    "test_layouts", "test_loop", "test_main", "test_make_triplets", "test_memory",
    "test_mining", "test_neighbors", "test_networks", "test_nt_xent", "test_ortho_hash",
    "test_page", "test_pair_runs", "test_pairs", "test_pairs_task",
    "test_paper_outcome", "test_paper_systems", "test_paper_table", "test_photo_views",
    "test_pooling", "test_pretrained", "test_protocol", "test_readme",
    "test_readme_panel", "test_relevance_runs", "test_runs", "test_sampler_logging",
    "test_sampler_panel", "test_self_supervised", "test_shares", "test_signals",
    "test_staged", "test_start", "test_step", "test_stop", "test_teacher", "test_tfds",
    "test_train", "test_trunks", "test_two_stages", "test_weighted_sum", "test_wheel",
    "test_whitening",
}  # fmt: skip


def pytest_collection_modifyitems(items):
    for item in items:
        slow = SLOW_FIXTURES & set(item.fixturenames)
        if slow or item.path.stem in SLOW_MODULES:
            item.add_marker(pytest.mark.slow)


# Found once all modules are imported.
_REGISTRIES = []


@pytest.fixture(autouse=True)
def plugins_of_one_test():
    """Forgets the plug-ins that a test registers."""
    kinds = [dict(registry._kinds) for registry in _REGISTRIES]
    yield
    for registry, before in zip(_REGISTRIES, kinds, strict=True):
        registry._kinds = before


def pytest_collection_finish():
    """Spares what is imported from the search for garbage, a tenth of the time."""
    gc.collect()
    _REGISTRIES.extend(x for x in gc.get_objects() if type(x) is Registry)
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def pytest_unconfigure():
    if _OWN_CACHE:
        shutil.rmtree(_OWN_CACHE, ignore_errors=True)
