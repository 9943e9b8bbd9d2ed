import json

from helpers.tensorboard_events import read_scalars

from deeprank_jax.training import metrics_writer


def test_a_resumed_run_reads_like_one_that_never_stopped(tmp_path):
    first = metrics_writer.MetricsWriter(tmp_path, first_step=0)
    for step in (1, 2, 3):
        first.write(step, {"loss": float(step)})
    first.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "lo')  # Killed while writing.
    second = metrics_writer.MetricsWriter(tmp_path, first_step=2)
    second.write(3, {"loss": 30.0})
    second.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 2.0},
        {"step": 3, "loss": 30.0},
    ]
    assert metrics_writer.read_metrics(tmp_path)[-1] == {"step": 3, "loss": 30.0}


def test_tensorboard_gets_the_same_numbers(tmp_path):
    writer = metrics_writer.MetricsWriter(tmp_path, first_step=0)
    writer.write(5, {"train/loss": 0.5})
    writer.close()
    assert read_scalars(tmp_path / "tensorboard") == [("train/loss", 5, 0.5)]


def test_no_file_is_no_metrics(tmp_path):
    assert metrics_writer.read_metrics(tmp_path) == []
