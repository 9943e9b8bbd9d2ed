"""Errors of what a user gave, whose messages are written for that user.

Commands print a `UserError` as one line and end with exit status 1. Every other
exception is a bug and keeps its traceback.
"""


class UserError(ValueError):
    """Something that the user gave cannot be used; the message says what to do."""


class ConfigError(UserError):
    """A value of the config cannot be used."""


class DataError(UserError):
    """Images, labels or lists of them cannot be used as given."""


class ArtifactError(UserError):
    """A folder is not an exported model or an index, or is damaged."""


class CheckpointError(UserError):
    """A checkpoint is damaged, or belongs to another run."""


class ExportError(UserError):
    """An exported model does not agree with its checkpoint, or cannot be written."""


class MissingExtraError(UserError):
    """A package that an optional feature needs is not installed."""
