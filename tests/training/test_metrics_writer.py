import json

from helpers.tensorboard_events import read_scalars
import pytest

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


@pytest.mark.parametrize(
    ("old", "new"), [("0.5", "0.7"), ('"step": 1', '"step": 9'), ("{", ""), ("", None)]
)
def test_a_log_that_has_changed_is_noticed(tmp_path, warnings_logged, old, new):
    writer = metrics_writer.MetricsWriter(tmp_path, first_step=0)
    for step in (1, 2, 3):
        writer.write(step, {"loss": step / 2})
        if step == 2:
            checksum = writer.checksum
    writer.close()
    reopen = lambda: metrics_writer.MetricsWriter(
        tmp_path, first_step=2, checksum=checksum
    )
    text = (tmp_path / "metrics.jsonl").read_text()
    writer = reopen()
    writer.close()
    assert writer.checksum == checksum
    assert warnings_logged == []
    path = tmp_path / "metrics.jsonl"
    path.unlink() if new is None else path.write_text(text.replace(old, new, 1))
    reopen().close()
    assert f"{path} has changed since step 2 was saved" in warnings_logged[0]


def test_a_validation_that_was_not_saved_is_written_anew(tmp_path, warnings_logged):
    """It is of the step that was saved before it, without it."""
    writer = metrics_writer.MetricsWriter(tmp_path, first_step=0)
    for step in (1, 2):
        writer.write(step, {"loss": step / 2})
    checksum, before = writer.checksum, metrics_writer.read_metrics(tmp_path)
    writer.write(2, {"validation/loss": 0.5})
    writer.close()
    options = dict(first_step=2, checksum=checksum)
    metrics_writer.MetricsWriter(tmp_path, **options).close()
    assert metrics_writer.read_metrics(tmp_path) == before
    assert warnings_logged == []


@pytest.mark.parametrize("line", ["\udcff", "[1]", "3", "{}", '{"step": "1"}'])
def test_lines_that_are_no_entries_are_left_out(tmp_path, line):
    text = f'{line}\n{{"step": 1, "loss": 0.5}}\n'
    (tmp_path / "metrics.jsonl").write_text(text, errors="surrogateescape")
    assert metrics_writer.read_metrics(tmp_path) == [{"step": 1, "loss": 0.5}]
