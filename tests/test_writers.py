import json

from tensorboard_events import read_scalars

from deeprank_jax import writers


def test_a_resumed_run_reads_like_one_that_never_stopped(tmp_path):
    first = writers.MetricsWriter(tmp_path, first_step=0)
    for step in (1, 2, 3):
        first.write(step, {"loss": float(step)})
    first.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "lo')  # Killed while writing.
    second = writers.MetricsWriter(tmp_path, first_step=2)
    second.write(3, {"loss": 30.0})
    second.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 2.0},
        {"step": 3, "loss": 30.0},
    ]
    assert writers.read_metrics(tmp_path)[-1] == {"step": 3, "loss": 30.0}


def test_tensorboard_gets_the_same_numbers(tmp_path):
    writer = writers.MetricsWriter(tmp_path, first_step=0)
    writer.write(5, {"train/loss": 0.5})
    writer.close()
    assert read_scalars(tmp_path / "tensorboard") == [("train/loss", 5, 0.5)]


def test_no_file_is_no_metrics(tmp_path):
    assert writers.read_metrics(tmp_path) == []
