"""Writes torch's files by hand, byte by byte, as torch is not installed."""

import io
import pickle
import struct
import sys
import types
import zipfile

import ml_dtypes
import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
NAMES = {
    "<f8": "DoubleStorage",
    "<f4": "FloatStorage",
    "<f2": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "<i8": "LongStorage",
    "<i4": "IntStorage",
    "|i1": "CharStorage",
    "|u1": "ByteStorage",
    "|b1": "BoolStorage",
}


def stand_in_for_torch(monkeypatch):
    """Puts empty modules where torch's would be, so that pickle writes their names."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2(*args):
        raise AssertionError("reading must not call what is importable")

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    for name in NAMES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    torch._utils = utils


class Storage:
    def __init__(self, numbers, *, size=None, view=None):
        self.numbers = np.asarray(numbers).ravel()
        self.size = len(self.numbers) if size is None else size
        self.key, self.view = str(id(self)), view


class Tensor:
    """A view of a storage, written as torch writes it."""

    def __init__(self, storage, shape, strides, offset=0, hooks=None):
        self.args = (storage, offset, shape, strides, False, hooks or {})

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.args


def tensor(array):
    array = np.asarray(array)
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return Tensor(Storage(array), array.shape, strides)


class Call:
    """Makes pickle write a call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Pickler(pickle.Pickler):
    def __init__(self, file, protocol=2):
        super().__init__(file, protocol)
        self.storages = {}

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        self.storages[obj.key] = obj
        dtype = obj.numbers.dtype
        kind = NAMES["bfloat16" if dtype == ml_dtypes.bfloat16 else dtype.str]
        kind = getattr(sys.modules["torch"], kind)
        legacy = (obj.view,) if self.legacy else ()
        return ("storage", kind, obj.key, "cpu", obj.size, *legacy)


def write_legacy(path, content, *, headers=(MAGIC, PROTOCOL, SYSTEM), protocol=2):
    file = io.BytesIO()
    for header in headers:
        pickle.dump(header, file, 2)
    pickler = Pickler(file, protocol)
    pickler.legacy = True
    pickler.dump(content)
    pickle.dump(sorted(pickler.storages), file, 2)
    for _, storage in sorted(pickler.storages.items()):
        file.write(struct.pack("<q", len(storage.numbers)))
        file.write(storage.numbers.tobytes())
    path.write_bytes(file.getvalue())


def write_zip(path, content, *, byteorder=b"little", protocol=2, compress=False):
    file = io.BytesIO()
    pickler = Pickler(file, protocol)
    pickler.legacy = False
    pickler.dump(content)
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("archive/data.pkl", file.getvalue())
        archive.writestr("archive/byteorder", byteorder)
        for key, storage in pickler.storages.items():
            archive.writestr(f"archive/data/{key}", storage.numbers.tobytes())
        archive.writestr("archive/version", b"3\n")
