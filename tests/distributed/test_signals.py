"""Signals to real processes, also where Python does not handle them at once."""

import pathlib
import signal
import subprocess
import sys
import time

from helpers.processes import is_running
import pytest

ROOT = pathlib.Path(__file__).parents[2]
# With handlers also where the tests run in the background, which ignores some.
PROGRAM = """
import ctypes, gc, pathlib, signal, sys, textwrap, threading, time
from deeprank_jax import files
from deeprank_jax.distributed import children, signals
from deeprank_jax.files import locks
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, IGNORED and signal.SIG_IGN or signal.SIG_DFL)
signals._LIMIT_SECONDS = 1.5  # Not to wait for.
folder = pathlib.Path(sys.argv[1])
SLEEP = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"]
def ready():
    print("ready", flush=True)
def in_c(seconds=60):
    # As XLA compiles: without the interpreter's lock, and not ended by a signal.
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    unlock = threading.Timer(seconds, libc.pthread_mutex_unlock, (mutex,))
    unlock.daemon = True
    unlock.start()
    threading.Timer(0.3, ready).start()
    libc.pthread_mutex_lock(mutex)
def describe(number):
    return f"deeprank test: {number.name}: stopped."
ending = signals.Ending(describe, owns_process=True)
with ending:
    try:
BODY
    except signals.Interrupted as interrupted:
        ending.say(interrupted.number)
        sys.exit(interrupted.status)
"""


class Program:
    """A process that runs the body of a command, and says when it is ready."""

    def __init__(self, body, folder, *, ignored=False):
        self.folder = folder
        lines = "\n".join(" " * 8 + line for line in body.strip().splitlines())
        code = PROGRAM.replace("BODY", lines).replace("IGNORED", str(ignored))
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout.readline() == "ready\n"

    def stop(self, *numbers):
        """Sends signals, and returns status, text on stderr and seconds."""
        started = time.monotonic()
        for i, number in enumerate(numbers):
            time.sleep(1.1 if i else 0.0)  # Within a second they count as one.
            self.process.send_signal(number)
        _, stderr = self.process.communicate(timeout=60)
        return self.process.returncode, stderr, time.monotonic() - started


@pytest.fixture
def start(tmp_path):
    programs = []

    def start(body, **options):
        programs.append(Program(body, tmp_path, **options))
        return programs[-1]

    yield start
    for program in programs:
        program.process.kill()
        program.process.communicate()


OUTPUTS = """
with (files.scratch_folder(folder) as scratch, locks.beside(folder / "out"),
      files.replacing(folder / "file") as file):
    WORK
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_with_one_sentence(start, tmp_path, number):
    program = start(OUTPUTS.replace("WORK", "ready(); time.sleep(60)"))
    status, stderr, seconds = program.stop(number)
    assert status == 128 + number
    assert stderr == f"deeprank test: {number.name}: stopped.\n"
    assert seconds < 3
    assert not list(tmp_path.iterdir())


def test_a_command_that_is_in_a_library_is_ended(start, tmp_path):
    program = start(OUTPUTS.replace("WORK", "in_c()"))
    assert len(list(tmp_path.iterdir())) == 3
    status, stderr, seconds = program.stop(signal.SIGTERM)
    assert (status, stderr) == (143, "deeprank test: SIGTERM: stopped.\n")
    assert 1 < seconds < 5
    assert not list(tmp_path.iterdir())


def test_a_second_signal_ends_at_once_what_takes_its_time(start):
    body = """
with signals.patient():
    ready()
    try:
        time.sleep(60)
    finally:
        in_c()
"""
    status, stderr, seconds = start(body).stop(signal.SIGINT, signal.SIGINT)
    assert (status, stderr) == (130, "deeprank test: SIGINT: stopped.\n")
    assert seconds < 3


def test_a_command_that_saves_is_not_ended(start, tmp_path):
    body = """
try:
    ready()
    time.sleep(60)
finally:
    with signals.patient():
        in_c(3)
        (folder / "saved").touch()
"""
    status, stderr, _ = start(body).stop(signal.SIGTERM)
    assert (status, stderr) == (143, "deeprank test: SIGTERM: stopped.\n")
    assert (tmp_path / "saved").exists()


def test_a_signal_in_a_callback_is_not_lost(start, tmp_path):
    """Such as the callback of garbage collection that JAX has."""
    body = """
def callback(phase, info):
    if phase == "stop":
        ready()
        time.sleep(2)
gc.callbacks.append(callback)
gc.collect()
gc.callbacks.clear()
try:
    time.sleep(60)
finally:
    (folder / "unwound").touch()
"""
    status, stderr, seconds = start(body).stop(signal.SIGINT)
    assert (status, stderr) == (130, "deeprank test: SIGINT: stopped.\n")
    assert seconds < 3
    assert (tmp_path / "unwound").exists()


def test_a_bare_except_does_not_stop_it(start):
    body = """
ready()
while True:
    try:
        time.sleep(60)
    except:
        pass
"""
    status, stderr, seconds = start(body).stop(signal.SIGHUP)
    assert (status, stderr) == (129, "deeprank test: SIGHUP: stopped.\n")
    assert seconds < 5


def test_a_library_that_replaces_the_exception_does_not_show(start):
    """As NumPy does when an extension module is being imported; it prints it, too."""
    body = """
try:
    ready()
    time.sleep(60)
except BaseException as error:
    sys.excepthook(*sys.exc_info())
    raise ImportError("cannot be initialized") from error
"""
    status, stderr, _ = start(body).stop(signal.SIGTERM)
    assert (status, stderr) == (143, "deeprank test: SIGTERM: stopped.\n")


def test_a_thread_that_waits_does_not_hold_up_the_end_after_an_error(start):
    """As one of Orbax does when a checkpoint could not be written."""
    body = """
class Loop:
    def __del__(self):
        raise AttributeError("half created")
loop = Loop()
threading.Thread(target=time.sleep, args=(60,)).start()
ready()
sys.exit("deeprank test: the disk is full.")
"""
    program = start(body)
    begun = time.monotonic()
    _, stderr = program.process.communicate(timeout=90)
    assert (program.process.returncode, stderr) == (
        1,
        "deeprank test: the disk is full.\n",
    )
    assert time.monotonic() - begun < 10


def test_an_ignored_signal_stays_ignored(start):
    body = "ready()\ntime.sleep(2.5)"
    status, stderr, seconds = start(body, ignored=True).stop(signal.SIGHUP)
    assert (status, stderr) == (0, "")
    assert seconds > 1


def test_the_sentence_has_a_line_of_its_own_below_a_bar(start):
    body = """
import tqdm
bar = tqdm.tqdm(total=3, desc="work")
ready()
time.sleep(60)
"""
    _, stderr, _ = start(body).stop(signal.SIGTERM)
    assert "deeprank test: SIGTERM: stopped." in stderr.splitlines()


@pytest.mark.parametrize("work", ["children.run(SLEEP)", "in_c()"])
def test_a_process_that_it_started_ends_too(start, tmp_path, work):
    body = f"""
def tell():
    while not children._running:
        time.sleep(0.01)
    (folder / "pid").write_text(str(next(iter(children._running)).pid))
    ready()
threading.Thread(target=tell, daemon=True).start()
if "children" not in {work!r}:
    threading.Thread(target=children.run, args=(SLEEP,), daemon=True).start()
{work}
"""
    program = start(body)
    status, stderr, _ = program.stop(signal.SIGTERM)
    assert (status, stderr) == (143, "deeprank test: SIGTERM: stopped.\n")
    deadline = time.monotonic() + 5
    while is_running((tmp_path / "pid").read_text()):
        assert time.monotonic() < deadline


def test_a_process_that_is_just_being_started_ends_too(start, tmp_path):
    body = """
class Slow(children.subprocess.Popen):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        (folder / "pid").write_text(str(self.pid))
        ready()
        time.sleep(1)
children.subprocess.Popen = Slow
children.run(SLEEP)
"""
    status, stderr, _ = start(body).stop(signal.SIGTERM)
    assert (status, stderr) == (143, "deeprank test: SIGTERM: stopped.\n")
    assert not is_running((tmp_path / "pid").read_text())


def test_a_process_whose_thread_is_just_being_started_saves_and_ends(start, tmp_path):
    body = """
CHILD = "import pathlib, signal, sys, time; path = pathlib.Path(sys.argv[1]); " \\
    "signal.signal(15, lambda *_: (path.write_text('saved'), sys.exit(143))); " \\
    "path.write_text('started'); time.sleep(60)"
path = folder / "state"
start = threading.Thread.start
def start_slowly(thread):
    start(thread)
    if thread.name.startswith("ThreadPoolExecutor"):
        while not path.exists() or path.read_text() != "started":
            time.sleep(0.01)
        ready()
        time.sleep(60)
threading.Thread.start = start_slowly
children.run([sys.executable, "-c", CHILD, str(path)])
"""
    status, stderr, _ = start(body).stop(signal.SIGTERM)
    assert (status, stderr) == (143, "deeprank test: SIGTERM: stopped.\n")
    assert (tmp_path / "state").read_text() == "saved"


def test_the_runs_of_an_experiment_save_and_end(start, tmp_path):
    """And those that wait for their turn are not started."""
    body = """
from deeprank_jax.experiments import runs
CHILD = '''
import pathlib, signal, sys, time
path = pathlib.Path(sys.argv[1])
def save(number, frame):
    path.write_text("saved")
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
path.write_text("started")
time.sleep(60)
'''
class Runs(runs.Runs):
    def train(self, name, settings):
        code = textwrap.dedent(CHILD)
        return children.run([sys.executable, "-c", code, str(folder / name)])
def tell():
    while sum(x.read_text() == "started" for x in folder.iterdir()) < 2:
        time.sleep(0.05)
    ready()
threading.Thread(target=tell, daemon=True).start()
Runs(folder, folder, jobs=2).train_all(dict.fromkeys("abcd", {}), description="runs")
"""
    program = start(body)
    status, stderr, seconds = program.stop(signal.SIGINT)
    assert status == 130
    assert stderr.endswith("deeprank test: SIGINT: stopped.\n")
    assert "Traceback" not in stderr
    assert seconds < 10
    assert {x.name: x.read_text() for x in tmp_path.iterdir()} == {
        "a": "saved",
        "b": "saved",
    }


WAITS_FOR_OTHERS = """
from deeprank_jax.distributed.heartbeat import Heartbeat
class Store:
    def key_value_set(self, *args, **options):
        pass
beat = Heartbeat(Store(), 0, 2, "127.0.0.1:1")
beat._reset()
ready()
try:
    time.sleep(60)
except signals.Interrupted as interrupted:
    beat.end_by_signal(interrupted.number)
"""


def test_a_process_of_a_job_says_once_why_it_ends(start):
    """Also if the others take longer to read it than the command has to end."""
    status, stderr, _ = start(WAITS_FOR_OTHERS).stop(signal.SIGTERM)
    assert status == 128 + signal.SIGTERM
    assert stderr.strip() == (
        "deeprank train: SIGTERM: stopped; start all of them again to continue from "
        "the last checkpoint."
    )
