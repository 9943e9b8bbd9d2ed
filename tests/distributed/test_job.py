"""Several processes as a user starts them: real ones, really killed.

Most are forked; those that are not also show that a job starts.
"""

import contextlib
import functools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

from helpers import shrunk
import jax
import numpy as np
import pytest

from deeprank_jax.configs import base
from deeprank_jax.distributed import coordinator, devices, heartbeat, stop
from deeprank_jax.distributed import job as job_lib
from deeprank_jax.training import checkpoints, metrics_writer
from deeprank_jax.training import loop as loop_lib
from tools.faults.forked import Forked

ROOT = pathlib.Path(__file__).parents[2]
ENV = {
    **os.environ,
    "JAX_NUM_CPU_DEVICES": "2",
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
}
STEPS = {"log_every": 10, "checkpoint_every": 20, "eval_every": 10_000}


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


class Started:
    """Processes of one job, whose output goes to files beside the workdir.

    A command of words of `deeprank` is run by a forked process.
    """

    def __init__(self, commands, directory):
        directory.mkdir(parents=True, exist_ok=True)
        self.logs = [directory / f"log{i}.txt" for i in range(len(commands))]
        self.processes = []
        for command, log in zip(commands, self.logs, strict=True):
            log.write_text("")
            if command[0] != sys.executable:
                process = Forked(command, log, folder=ROOT, environment=ENV)
            else:
                with log.open("w") as file:
                    process = subprocess.Popen(
                        command, cwd=ROOT, env=ENV, stdout=file, stderr=file
                    )
            self.processes.append(process)

    def wait(self, timeout=240):
        """Returns the exit statuses."""
        deadline = time.monotonic() + timeout
        return [p.wait(max(0.1, deadline - time.monotonic())) for p in self.processes]

    def said(self, process):
        return self.logs[process].read_text(errors="replace")

    def sentence(self, process):
        """Returns the one sentence that a process ends with."""
        lines = self.said(process).splitlines()
        lines = [line for line in lines if line.startswith("deeprank train: ")]
        assert len(lines) == 1, self.everything()
        return lines[0]

    def everything(self):
        return "\n".join(self.said(i) for i in range(len(self.logs)))


@contextlib.contextmanager
def start(images, workdir, *, num=2, own=((), ()), is_forked=True, **values):
    """Starts a run of `num` processes; `own` are further flags of each."""
    command = [
        *(("train",) if is_forked else (sys.executable, "-m", "deeprank_jax.main")),
        f"--config={ROOT / 'configs' / 'base.py'}",
        f"--config.data.dir={images}", f"--workdir={workdir}", *shrunk.flags(**values),
    ]  # fmt: skip
    with run_all([command] * num, workdir.parent / f"{workdir.name} logs", own) as job:
        yield job


@contextlib.contextmanager
def run_all(commands, directory, own=((), ())):
    port, num = free_port(), len(commands)
    joined = [
        [*command, f"--coordinator_address=127.0.0.1:{port}",
         f"--num_processes={num}", f"--process_id={i}", *own[i]]
        for i, command in enumerate(commands)
    ]  # fmt: skip
    started = Started(joined, directory)
    try:
        yield started
    finally:
        for process in started.processes:
            process.kill()
            process.wait()


def run(images, workdir, **options):
    """Returns a job that has ended well."""
    with start(images, workdir, **options) as job:
        assert set(job.wait()) == {0}, job.everything()
    return job


def wait_for_step(job, workdir, step, timeout=240):
    """Waits until a step is logged and a checkpoint is there."""
    deadline = time.monotonic() + timeout
    last = lambda: max(
        (e["step"] for e in metrics_writer.read_metrics(workdir)), default=0
    )
    while last() < step or not saved_steps(workdir):
        assert time.monotonic() < deadline, job.everything()
        assert [p.poll() for p in job.processes] == [None, None], job.everything()
        time.sleep(0.2)


def saved_steps(workdir):
    directory = workdir / "checkpoints"
    return sorted(int(p.name) for p in directory.glob("[0-9]*") if p.name.isdigit())


def results(workdir):
    return json.loads((workdir / "results.json").read_text())


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    directory = tmp_path_factory.mktemp("images")
    return shrunk.write_images(directory / "own photos", num_classes=12, num_images=6)


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    """Returns the job and workdir of a finished run of two processes."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    return run(images, workdir, num_steps=8, is_forked=False), workdir


PROGRAM = """
import sys
import numpy as np
from deeprank_jax.distributed import job, processes
from distributed import test_job
address, num, process = (arg.split("=")[1] for arg in sys.argv[2:])
with job.job(address, int(num), int(process)):
    start, stop = processes.own_share(16)
    out = test_job.train_three_steps(slice(start, stop))
    own = np.zeros((5, 3 if process == "0" else 0))
    own[:3] = np.arange(9).reshape(3, 3)[:, : own.shape[1]]
    out["gathered"] = processes.gather_shares(own)
    out["first"] = processes.of_first(np.full(3, float(process), np.float32))
    out.update(test_job.ask_about_held_out())
    out["agree"] = [processes.all_agree(True), processes.all_agree(process == "0")]
    np.savez(f"{sys.argv[1]}/{process}.npz", **out)
"""


def train_three_steps(rows, axis_name=devices.DATA_AXIS):
    """Returns parameters and embeddings of a process that trains on `rows`.

    Each anchor's negative is the nearest of all images that the axis leads to.
    """
    import optax
    from training.test_step import (
        TinyNet,
        batches,
        create_loss,
        nnx,
        ranking,
        relevance,
        ts,
    )

    loss_fn = create_loss(
        margin=1.0,
        miner="batch_hard",
        symmetric=True,
        relevance_fn=relevance.SameClass().pairwise,
        min_relevance_gap=0.5,
        axis_name=axis_name,
    )
    tx = optax.sgd(0.1, momentum=0.9)
    graphdef, state = ts.create_train_state(TinyNet(rngs=nnx.Rngs(0)), tx)
    step = ts.make_train_step(graphdef, tx, ranking.RankingObjective(loss_fn))
    step, state = devices.pmap_step(step), devices.replicate(state)
    labels = np.random.default_rng(1).integers(0, 4, (16, 1, 1), np.int32)
    labels = labels + np.array([[0], [0], [1]], np.int32)
    for batch in batches(3):
        batch = {**batch, "attributes": labels}
        own = jax.tree.map(lambda x: x[rows].copy(), batch)
        state, metrics = step(state, devices.split_over_devices(own))
        assert np.asarray(metrics["finite"]).shape == (4, 4)
    embed = devices.pmap_embed(ts.make_embed_step(graphdef))
    embeddings = embed(state, next(batches(1))["images"][:5, 0])
    leaves = [*jax.tree.leaves((state.params, state.model_state)), embeddings]
    return {str(i): np.asarray(leaf) for i, leaf in enumerate(leaves)}


def ask_about_held_out():
    """Returns which records a process reads, and what all of them say together."""
    from training.test_classification import CLASSES, Reader, classification, logits_fn

    reader = Reader(bad=(3,))
    told = classification.measure(CLASSES, reader, logits_fn, 2)
    return {"read": np.array(reader.loaded), "told": np.array(list(told.values()))}


def test_two_processes_train_as_one(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with run_all([command] * 2, tmp_path) as job:
        assert job.wait() == [0, 0], job.everything()
    expected = train_three_steps(slice(None))
    alone = train_three_steps(slice(None), axis_name=None)
    # What each device finds among its own images is something else.
    assert max(np.abs(alone[name] - expected[name]).max() for name in expected) > 1e-3
    asked = ask_about_held_out()
    for process, read in enumerate(([2, 3, 5], [7, 11])):
        found = dict(np.load(tmp_path / f"{process}.npz"))
        np.testing.assert_array_equal(
            found.pop("gathered"), [*np.arange(9).reshape(3, 3), *np.zeros((2, 3))]
        )
        assert found.pop("agree").tolist() == [True, False]
        np.testing.assert_array_equal(found.pop("first"), np.zeros(3))
        assert found.pop("read").tolist() == read
        np.testing.assert_allclose(found.pop("told"), asked["told"])
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5)


def test_two_processes_learn_classes_as_one(images, tmp_path):
    """They are dealt one stream of images, so that all numbers are the same."""
    values = {
        "task": "classification",
        "task.held_out": 0.3,
        "loss": "cross_entropy",
        "model.trunk.widths": (4,),
        "model.whitening_power": 0.5,
        "num_steps": 4,
        "log_every": 1,
        "checkpoint_every": 4,
        "data.augment.shift_pixels": 0,
        "data.augment.flip": False,
        "data.augment.color_jitter": 0.0,
        # AdamW would turn the rounding of a gradient near 0 into a whole step.
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 0.03,
        "schedule.warmup_steps": 0,
        "evaluation.best_metric": "classification/top1",
    }
    one, two = tmp_path / "one", tmp_path / "two"
    run(images, two, **values)
    config = shrunk.shrink(base.get_config(), **values)
    config.data.dir = str(images)
    assert jax.local_device_count() == 4  # Those of both processes.
    loop_lib.train(config, one)
    told = [
        [
            e["train/loss"]
            for e in metrics_writer.read_metrics(workdir)
            if "train/loss" in e
        ]
        for workdir in (one, two)
    ]
    assert len(set(told[0])) == 4
    np.testing.assert_allclose(*told, atol=1e-5)
    found, expected = (checkpoints.read_network(x).arrays for x in (two, one))
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-5, err_msg=name)
    assert results(two)["held out"] == results(one)["held out"]
    matrices = [np.load(x / "whitening.npz")["matrix"] for x in (two, one)]
    np.testing.assert_allclose(*matrices, rtol=1e-3, atol=1e-3 * matrices[1].max())


def test_results_are_written_once(trained):
    job, workdir = trained
    assert "Results:" in job.said(0)
    assert "Devices: " in job.said(0)
    for word in ("Results:", "Data:", "Step ", "steps", "Writing the report", " ... "):
        assert word not in job.said(1)
    assert (workdir / "report" / "index.html").exists()
    assert len(list((workdir / "tensorboard").iterdir())) == 1
    assert saved_steps(workdir)[-1] == 8
    steps = [
        e["step"] for e in metrics_writer.read_metrics(workdir) if "train/loss" in e
    ]
    assert steps == [2, 4, 6, 8]
    assert not (workdir / ".shared").exists()


def test_one_process_goes_on_from_two(images, trained):
    """And measures the same of what two have learned."""
    _, workdir = trained
    before = results(workdir)
    (workdir / "results.json").unlink()  # Else it is finished.
    job = run(images, workdir, num=1, num_steps=8)
    assert "Continuing with 1 processes instead of 2" in job.said(0)
    after = results(workdir)
    assert before.keys() == after.keys()
    flat = lambda tree: jax.tree.leaves(tree)
    np.testing.assert_allclose(flat(before), flat(after), rtol=1e-6)
    run(images, workdir, num=1, num_steps=10)
    job = run(images, workdir, num_steps=12)
    assert "Continuing with 2 processes instead of 1" in job.said(0)
    assert saved_steps(workdir)[-1] == 12


@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", [1, 0])
def test_a_process_that_dies_is_named(images, tmp_path, victim):
    workdir = tmp_path / "run"
    with start(images, workdir, num_steps=100_000, **STEPS) as job:
        wait_for_step(job, workdir, 30)
        other = 1 - victim
        job.processes[victim].kill()
        begun = time.monotonic()
        status = job.processes[other].wait(60)
        print(f"{time.monotonic() - begun:.1f} s until process {other} ended")
    assert status == 1, job.said(other)
    assert f"process {victim} of 2 is gone" in job.sentence(other)
    assert "start all of them again" in job.sentence(other)
    if victim == 0:  # The run is the same, whichever has died.
        return
    last = saved_steps(workdir)[-1]
    again = run(images, workdir, **{**STEPS, "num_steps": last + 4})
    assert f"Continuing from step {last}" in again.said(0)
    assert results(workdir)


@pytest.mark.timeout(600)
def test_sigterm_to_one_stops_all_at_one_step(images, tmp_path):
    workdir = tmp_path / "run"
    with start(images, workdir, num_steps=100_000, **STEPS) as job:
        wait_for_step(job, workdir, 30)
        job.processes[1].send_signal(signal.SIGTERM)
        assert job.wait(60) == [128 + signal.SIGTERM] * 2, job.everything()
    last = saved_steps(workdir)[-1]
    assert job.sentence(0) == job.sentence(1)
    assert job.sentence(0).endswith(
        f"SIGTERM: stopped; run again to continue from step {last}."
    )


SLOW_WORK = """
import sys, time
from deeprank_jax.distributed import job, processes, signals, stop
address, num, process = (arg.split("=")[1] for arg in sys.argv[1:])
with job.job(address, int(num), int(process)), stop.create_stop() as agreed:
    agreed.reached(3)
    try:
        with agreed.interruptible(), processes.interrupted_together():
            for _ in range(60 if process == "0" else 1):
                print("works", flush=True)
                time.sleep(0.5)
                agreed.check()
        print("whole")
    except signals.StopRequested:
        print("interrupted", agreed.requested, agreed.number.name)
"""


def test_slow_work_of_all_is_interrupted_by_a_signal_to_one(tmp_path):
    """To the one whose share is done, and which waits for the other."""
    with run_all([[sys.executable, "-c", SLOW_WORK]] * 2, tmp_path) as job:
        deadline = time.monotonic() + 240
        while job.said(0).count("works") < 4 or "works" not in job.said(1):
            assert time.monotonic() < deadline, job.everything()
            time.sleep(0.1)
        job.processes[1].send_signal(signal.SIGTERM)
        assert job.wait(60) == [0, 0], job.everything()
    for process in range(2):
        assert "interrupted True SIGTERM" in job.said(process)
    assert job.said(0).count("works") < 60


def test_another_config_is_refused_by_all(images, tmp_path):
    own = ((), ("--config.seed=3",))
    with start(images, tmp_path / "run", own=own) as job:
        assert job.wait() == [1, 1], job.everything()
    for process in range(2):
        assert job.sentence(process) == (
            "deeprank train: config.seed is 3 in process 1 and 0 in process 0: start "
            "all processes with the same command."
        )


def test_what_ends_one_is_told_to_the_others(images, tmp_path):
    """Process 0 looks at the data first, and the others wait for it."""
    with start(images / "nothing", tmp_path / "run") as job:
        assert job.wait() == [1, 1], job.everything()
    reason = job.sentence(0).removeprefix("deeprank train: ")
    assert reason.startswith(f"{images / 'nothing'}: there is no such folder")
    assert job.sentence(1) == (
        "deeprank train: process 0 of 2 has ended, and so does this one. Its reason: "
        + reason
    )


def test_some_of_the_flags_are_not_enough():
    with pytest.raises(job_lib.CannotJoinError, match="go together"):
        with job_lib.job("127.0.0.1:1", 2, None):
            pass


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "1"}, False),
        ({"SLURM_NTASKS": "4"}, True),
        ({"SLURM_NTASKS": None, "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),
    ],
)
def test_only_several_tasks_are_a_job(monkeypatch, environment, expected):
    slurm = {"JOB_ID": "1", "STEP_NODELIST": "node1", "PROCID": "0", "LOCALID": "0"}
    if environment.get("SLURM_NTASKS"):
        for name, value in slurm.items():
            monkeypatch.setenv(f"SLURM_{name}", value)
    for name, value in environment.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    assert coordinator.is_in_cluster() == expected


@pytest.mark.parametrize(
    ("module", "name", "attribute"),
    [
        ("distributed", "global_state", "client"),
        ("distributed", "global_state", "coordinator_address"),
        ("clusters", "ClusterEnv", "_cluster_types"),
        ("clusters", "ClusterEnv", "opt_in_only_method"),
        ("clusters", "ClusterEnv", "is_env_present"),
        ("clusters", "ClusterEnv", "get_process_count"),
    ],
)
def test_jax_has_its_private_parts_where_they_are_expected(module, name, attribute):
    assert hasattr(coordinator.private(module, name), attribute), (
        f"JAX {jax.__version__} has moved jax._src.{module}.{name}.{attribute}; adapt "
        "deeprank_jax/distributed/coordinator.py."
    )


def test_a_jax_without_a_private_part_is_named():
    with pytest.raises(
        RuntimeError, match=r"JAX \S+ has no jax\._src\.clusters\.Cloud"
    ):
        coordinator.private("clusters", "Cloud")
    with pytest.raises(RuntimeError, match=r"has no jax\._src\.moved\.global_state"):
        coordinator.private("moved", "global_state")


class Store:
    """What the tests need of the coordinator's key-value store."""

    def __init__(self):
        self.values = {}
        self.changed = threading.Condition()

    def key_value_set(self, key, value, allow_overwrite=False):
        with self.changed:
            assert allow_overwrite or key not in self.values
            self.values[key] = value
            self.changed.notify_all()

    def key_value_dir_get(self, prefix):
        with self.changed:
            found = self.values.items()
            return [(k, v) for k, v in found if k.startswith(prefix)]

    def blocking_key_value_get(self, key, timeout_in_ms):
        with self.changed:
            assert self.changed.wait_for(
                lambda: key in self.values, timeout_in_ms / 1000
            )
            return self.values[key]


def test_all_stop_after_the_same_step(monkeypatch):
    """Loops that run ahead of each other by up to two steps, as those of a job do."""
    num, store, ended = 4, Store(), {}
    monkeypatch.setattr(jax, "process_count", lambda: num)
    here = threading.local()
    monkeypatch.setattr(jax, "process_index", lambda: here.process)
    monkeypatch.setattr(stop, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(coordinator, "_numbers", iter([7] * num))
    stops = [stop.AgreedStop(store) for _ in range(num)]
    steps, moved = [0] * num, threading.Condition()

    def listen(process):
        here.process = process
        stops[process]._poll()

    def loop(process):
        rng = np.random.default_rng(process)
        for step in range(1, 10_000):
            with moved:  # A step needs all others to be at most two behind.
                assert moved.wait_for(lambda step=step: min(steps) >= step - 3, 30)
                steps[process] = step
                moved.notify_all()
            time.sleep(rng.uniform(0, 0.004))
            if stops[process].reached(step):
                break
        ended[process] = step

    threads = [
        threading.Thread(target=functools.partial(target, process))
        for target in (listen, loop)
        for process in range(num)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    stops[2]._handlers._receive(signal.SIGHUP, None)
    for thread in threads:
        thread.join(30)
    assert len(ended) == num
    assert len(set(ended.values())) == 1
    assert 1 < ended[0] < 9_999
    assert {stop.number for stop in stops} == {signal.SIGHUP}


@pytest.fixture
def beating(monkeypatch):
    """Returns the heartbeat of process 1 of 3, and the sentences that it ended with."""
    said = []
    beat = heartbeat.Heartbeat(Store(), 1, 3, "127.0.0.1:1")
    beat._reset()
    monkeypatch.setattr(beat, "_end", said.append)
    return beat, said


def test_a_silent_process_is_the_one_that_is_gone(beating):
    beat, _ = beating
    assert beat._silent(5.0) == []
    beat._last_beat[2] -= 6.0
    assert beat._silent(5.0) == [2]
    # One that ended because of it is later, and says why.
    beat._last_beat[0] -= 5.5
    assert beat._silent(5.0) == [2, 0]
    beat._reasons = {0: beat._gone_message(2, 6.0)}
    assert beat._silent(5.0) == [2]
    assert beat._failed_message(0, beat._reasons[0]) == beat._gone_message(2, 6.0)
    # Where the store does not answer, nothing is known of the others.
    beat._last_beat = {process: 0.0 for process in range(3)}
    assert beat._silent(5.0) == [0]


def test_the_reason_of_another_is_passed_on(beating, monkeypatch):
    beat, said = beating
    monkeypatch.setattr(heartbeat, "_GRACE_SECONDS", 0.0)
    beat._reasons = {2: "deeprank train: the disk is full."}
    monkeypatch.setattr(beat, "_end", lambda text: (said.append(text), beat.stop()))
    beat._monitor()
    assert said == [
        "deeprank train: process 2 of 3 has ended, and so does this one. Its reason: "
        "the disk is full."
    ]


def test_no_thread_is_in_the_library_when_a_job_has_ended(beating, monkeypatch):
    """One that is would abort the process while Python ends."""
    beat, said = beating
    monkeypatch.setattr(heartbeat, "exit_on_abort", lambda explain: None)
    beat.start()
    threads = list(beat._threads)
    assert len(threads) == 2
    assert all(thread.is_alive() for thread in threads)
    beat.stop()
    assert not any(thread.is_alive() for thread in threads)
    assert said == []


def test_a_signal_to_one_outside_the_loop_ends_all(images, tmp_path):
    """To process 0, which the others have to read from before it ends."""
    workdir, victim = tmp_path / "run", 0
    with start(images, workdir, **STEPS) as job:
        deadline = time.monotonic() + 120
        while not (workdir / "lock").exists():
            assert time.monotonic() < deadline, job.everything()
            time.sleep(0.05)
        begun = time.monotonic()
        job.processes[victim].send_signal(signal.SIGTERM)
        assert job.wait(60) == [128 + signal.SIGTERM] * 2, job.everything()
        assert time.monotonic() - begun < 10
    assert "Traceback" not in job.everything()
    assert job.sentence(victim) == (
        "deeprank train: SIGTERM: stopped; start all of them again to continue from "
        "the last checkpoint."
    )
    assert job.sentence(1 - victim) == (
        f"deeprank train: SIGTERM to process {victim} of 2: stopped, as all are; start "
        "all of them again to continue from the last checkpoint."
    )
    assert not [*workdir.rglob("*.tmp"), *workdir.glob("lock"), *workdir.glob(".sh*")]


def has_socket(pid):
    """Returns whether a process listens or is connected to another one."""
    names = []
    for path in pathlib.Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            names.append(os.readlink(path))
    return any(name.startswith("socket:") for name in names)


@pytest.mark.parametrize(
    ("victim", "number", "status", "sentence"),
    [
        (1, signal.SIGTERM, 143, "SIGTERM to process 1 of 3: stopped, as all are;"),
        (0, signal.SIGKILL, 1, "process 0 of 3 is gone (its connection broke);"),
    ],
)
def test_those_that_wait_for_others_are_told_of_an_end(
    images, tmp_path, victim, number, status, sentence
):
    """The third process is never started."""
    with start(images, tmp_path / "run", own=(["--num_processes=3"],) * 2) as job:
        deadline = time.monotonic() + 120
        while not all(has_socket(process.pid) for process in job.processes):
            assert time.monotonic() < deadline, job.everything()
            time.sleep(0.1)
        time.sleep(2.0)
        job.processes[victim].send_signal(number)
        begun = time.monotonic()
        assert job.processes[1 - victim].wait(60) == status, job.everything()
        assert time.monotonic() - begun < 10
        job.processes[victim].wait(10)
    assert "Traceback" not in job.everything()
    assert job.sentence(1 - victim) == (
        f"deeprank train: {sentence} start all of them again to continue from the last "
        "checkpoint."
    )
