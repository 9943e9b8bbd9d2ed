import os
import signal

import pytest

from deeprank_jax.distributed import signals
from deeprank_jax.distributed import stop as stop_lib
from deeprank_jax.training import health

HEALTHY = dict(loss=0.1, active_share=0.6, mean_distance=1.8, effective_rank=20.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(mean_distance=0.01), "has collapsed: all embeddings"),
        (dict(effective_rank=1.1), "has collapsed: the embeddings vary along"),
        (dict(loss=0.2, active_share=1.0), "loss sits at the margin"),
        (dict(loss=0.0, active_share=0.0), "Nothing is left to learn"),
        ({"sampler_failures/repeated": 1.0}, "More than a tenth of the triplets"),
    ],
)
def test_each_symptom_is_named_once_an_episode(change, said):
    watch = health.TrainingMonitor(margin=0.2, batch_size=8, patience=3)
    sick = {**HEALTHY, **change}
    heard = [watch.observe(m) for m in (sick, sick, HEALTHY, sick, sick, sick, sick)]
    assert [len(texts) for texts in heard] == [0, 0, 0, 0, 0, 1, 0]
    assert said in heard[5][0]
    assert "config." in heard[5][0]  # What to try.


def test_a_loss_without_a_margin_cannot_sit_at_it():
    watch = health.TrainingMonitor(margin=None, batch_size=8, patience=3)
    soft = {**HEALTHY, "loss": 0.2, "active_share": 1.0}
    assert [watch.observe(soft) for _ in range(5)] == [[]] * 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_noted_and_the_old_handler_put_back(number):
    # Also where the tests run in the background, which ignores some.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with stop_lib.StopSignal() as stop:
            assert not stop.requested
            os.kill(os.getpid(), number)
            assert stop.requested
            assert stop.number == number
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_second_signal_acts_at_once(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stop_lib.StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)  # One request may come as two signals.
            assert stop.number == signal.SIGTERM
            monkeypatch.setattr(signals, "REPEAT_SECONDS", 0.0)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_ignored_signal_stays_ignored():
    """As `nohup` has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_lib.StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)
