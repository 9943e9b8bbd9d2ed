"""The error of data that cannot be used: one sentence for the person who gave it."""


class DataError(ValueError):
    """The data cannot be used as given; the message says why and what to do."""
