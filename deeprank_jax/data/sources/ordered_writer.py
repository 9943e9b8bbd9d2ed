"""Writer of TFDS examples whose files are the same in every run."""

from collections.abc import Iterable

from deeprank_jax.errors import needs_extra

with needs_extra("train"):
    from etils import epath
    from tensorflow_datasets.core import file_adapters, writer
    from tensorflow_datasets.proto import tf_example_pb2

Key = int | str | bytes


class OrderedWriter(writer.ExampleWriter):
    """Writes the features of an example in the order of their names.

    TFDS writes them in an order that differs from run to run.
    """

    def write(
        self, path: epath.PathLike, examples: Iterable[tuple[Key, bytes]]
    ) -> file_adapters.ExamplePositions | None:
        """Writes serialized examples with their keys; see the base class."""
        ordered = ((key, _serialize_ordered(example)) for key, example in examples)
        return super().write(path, ordered)


def _serialize_ordered(serialized: bytes) -> bytes:
    # pyrefly: ignore[missing-attribute]
    example = tf_example_pb2.Example.FromString(serialized)
    return example.SerializeToString(deterministic=True)
