"""Reads TensorBoard's event files without TensorBoard."""

import struct

from tensorboardX.proto import event_pb2


def read_scalars(directory):
    """Returns `(tag, step, value)` for each scalar of each file, in order."""
    found = []
    for path in sorted(directory.iterdir()):
        data = path.read_bytes()
        while data:
            # A record is its length, a checksum, the event and another checksum.
            (length,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            data = data[16 + length :]
    return found
