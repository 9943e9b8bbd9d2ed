"""Errors that a user can cause, with messages written for the user.

Commands print a `UserError` as one line and end with exit status 1. Every other
exception is a bug and keeps its traceback.
"""

from collections.abc import Iterator
import contextlib


class UserError(ValueError):
    """An input of the user cannot be used; the message names the remedy."""


class ConfigError(UserError):
    """A value of the config cannot be used."""


class DataError(UserError):
    """Images, labels or lists of images cannot be used."""


class ArtifactError(UserError):
    """A folder is not an exported model or an index, or is damaged."""


class CheckpointError(UserError):
    """A checkpoint is damaged, or belongs to another run."""


class WeightsError(UserError):
    """A file of pretrained weights cannot be read, or does not fit the network."""


class ExportError(UserError):
    """An exported model does not agree with its checkpoint, or cannot be written."""


class MissingExtraError(UserError):
    """A package that an optional feature needs is not installed."""


class WriteError(UserError, OSError):
    """A file cannot be written to the user's path; `errno` holds the reason."""

    def __str__(self) -> str:
        """Returns the message alone; OSError would put `strerror` in its place."""
        return str(self.args[0])


class ReadError(UserError, OSError):
    """A path is no regular file, or one that is too large; `strerror` says which."""

    def __str__(self) -> str:
        """Returns the message alone; OSError would put `strerror` in its place."""
        return str(self.args[0])


@contextlib.contextmanager
def needs_extra(name: str) -> Iterator[None]:
    """Turns a failed import in the body into a sentence with the install command.

    Args:
      name: Extra of the distribution that holds the imported packages.

    Raises:
      MissingExtraError: A package that the body imports is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "deeprank_jax"):
            raise
        raise missing_extra(package, name) from error


def missing_extra(package: str, extra: str) -> MissingExtraError:
    """Returns the error for a package that is not installed.

    Args:
      package: Name of the package.
      extra: Extra of the distribution that holds it.
    """
    return MissingExtraError(
        f"{package} is not installed; it comes with the extra {extra!r}: "
        f"pip install 'deeprank-jax[{extra}]'."
    )
