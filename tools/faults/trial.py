"""Trials of a fault, and the ways in which one can end."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import enum
import logging
import pathlib
import random
import signal
import tempfile
import threading
import traceback
from types import FrameType
from typing import Protocol

from deeprank_jax.errors import UserError
from tools.faults.samples import Samples

TRACEBACK = "Traceback (most recent call last)"


class Outcome(enum.StrEnum):
    """End of a trial."""

    # A sentence named the fault, and nothing wrong was used or left.
    DETECTED = "detected"
    # The result is the same to the bit, and nothing was said.
    HARMLESS = "harmless"
    # Another result, or an error that names nothing.
    SILENT = "silent"
    # Not ended within its time.
    HUNG = "hung"
    # An exception that is no `UserError`, or a traceback on standard error.
    TRACEBACK = "traceback"


FAILURES = (Outcome.SILENT, Outcome.HUNG, Outcome.TRACEBACK)


@dataclasses.dataclass(frozen=True)
class Trial:
    """A trial that has ended.

    Attributes:
      fault: Phrase for the fault, e.g. `"bit 3 of byte 70 of index.json flipped"`.
      outcome: End of the trial.
      detail: Sentence, exception or difference that decided on the outcome.
    """

    fault: str
    outcome: Outcome
    detail: str = ""


class Kind(Protocol):
    """A kind of fault, prepared once and tried many times."""

    def prepare(self, samples: Samples, folder: pathlib.Path) -> None:
        """Creates in `folder` all that the trials copy or compare with."""

    def run(self, folder: pathlib.Path, rng: random.Random) -> Trial:
        """Tries one fault, drawn from `rng`, in an empty folder."""


class LateError(BaseException):
    """A trial has taken longer than it may; no `except Exception` holds it up."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Ends the body with an exception once its time is over.

    Args:
      seconds: Time for the body.

    Raises:
      LateError: The body took longer.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise LateError(f"not ended after {seconds:g} s")

    handler = signal.signal(signal.SIGALRM, stop)
    remaining, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, remaining, interval)
        signal.signal(signal.SIGALRM, handler)


class _Sentences(logging.Handler):
    """Handler that keeps the text of warnings and errors."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.sentences: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.sentences.append(record.getMessage())


@contextlib.contextmanager
def hearing() -> Iterator[list[str]]:
    """Gives the list to which the body's warnings and threads' tracebacks are added.

    What the body writes to standard error goes there, too, and not to the terminal.
    """
    handler, logger = _Sentences(), logging.getLogger("absl")
    hook = threading.excepthook

    def keep(arguments: threading.ExceptHookArgs) -> None:
        handler.sentences.append(f"{TRACEBACK}: {arguments.exc_value!r} in a thread")

    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    threading.excepthook = keep
    try:
        # A file, since commands ask for its descriptor.
        with tempfile.TemporaryFile("w+") as written:
            with contextlib.redirect_stderr(written):
                yield handler.sentences
            written.seek(0)
            if TRACEBACK in (text := written.read()):
                handler.sentences.append(text)
    finally:
        threading.excepthook = hook
        logger.removeHandler(handler)
        logger.propagate = propagate


def judge(
    fault: str,
    names: Sequence[str],
    read: Callable[[], object],
    expected: object,
    seconds: float,
) -> Trial:
    """Runs a trial in this process, and decides how it ended.

    Args:
      fault: Phrase for the fault.
      names: Names of the damaged thing, one of which a sentence must have.
      read: Function that uses the damaged thing and returns its result.
      expected: Result of the undamaged one.
      seconds: Time that `read` may take.
    """
    result: object = None
    error: BaseException | None = None
    with hearing() as sentences:
        try:
            with time_limit(seconds):
                result = read()
        except LateError as late:
            return Trial(fault, Outcome.HUNG, str(late))
        except (Exception, SystemExit) as other:
            error = other
    text = "\n".join(sentences)
    if error is not None and not isinstance(error, UserError):
        return Trial(fault, Outcome.TRACEBACK, _summary(error))
    if TRACEBACK in text:
        return Trial(fault, Outcome.TRACEBACK, text[:2000])
    if error is not None:
        return _judge_sentence(fault, names, str(error))
    if result != expected:
        detail = f"another result ({_difference(result, expected)}); {text}"
        return Trial(fault, Outcome.SILENT, detail)
    is_named = any(name in text for name in names)
    return Trial(fault, Outcome.DETECTED if is_named else Outcome.HARMLESS, text)


def _judge_sentence(fault: str, names: Sequence[str], sentence: str) -> Trial:
    is_named = any(name in sentence for name in names)
    outcome = Outcome.DETECTED if is_named else Outcome.SILENT
    return Trial(fault, outcome, sentence)


def _difference(result: object, expected: object) -> str:
    """Returns the first parts in which two results differ, shortened."""
    if isinstance(result, tuple | list) and isinstance(expected, tuple | list):
        for place, (one, other) in enumerate(zip(result, expected, strict=False)):
            if one != other:
                return f"{place}: {_difference(one, other)}"
    texts = str(result), str(expected)
    unequal = (i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b)
    same = next(unequal, min(map(len, texts)))
    start = max(0, same - 40)
    return " in place of ".join(repr(text[start : same + 80]) for text in texts)


def _summary(error: BaseException) -> str:
    """Returns an exception with the places that it came through."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    places = " > ".join(
        f"{pathlib.Path(x.filename).name}:{x.lineno} {x.name}" for x in frames
    )
    return f"{type(error).__name__}: {error} ({places})"
