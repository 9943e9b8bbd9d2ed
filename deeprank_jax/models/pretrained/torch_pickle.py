"""Reading a torch file of weights without torch, and without trusting the file.

A torch file is a pickle, and a pickle is a program that may call whatever it names.
Here it may name the few things that a mapping of tensors is made of, and gets
stand-ins for them: nothing is imported, and nothing that a file says is executed.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
import io
import math
import os
import pathlib
import pickle
from typing import Any, BinaryIO, NamedTuple
import zipfile

import ml_dtypes
import numpy as np

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_ZIP_START = b"PK\x03\x04"
_DTYPES: Mapping[str, Any] = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class WeightsError(ValueError):
    """A file of weights cannot be read, or does not fit the network."""


class _Storage(NamedTuple):
    """A run of numbers in the file, of which tensors are views."""

    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    """What a file says of a tensor, not yet checked."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


def read_torch(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads what `torch.save(model.state_dict(), path)` wrote, old format or new.

    Args:
      path: of the file.

    Returns:
      The arrays by name, in the file's order and read-only, as some may share their
      memory. float16 and bfloat16 come as float32, other types as they are.

    Raises:
      WeightsError: the file names anything but tensors, is cut off or damaged, or
        is no mapping of tensors.
    """
    path = pathlib.Path(path)
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        read = _read_zip if head.startswith(_ZIP_START) else _read_legacy
        try:
            tensors, storages = read(file, path)
            return {
                name: _create_array(tensor, storages, f"{path}: {name}")
                for name, tensor in tensors.items()
            }
        except WeightsError:
            raise
        # A damaged pickle raises anything, from IndexError to MemoryError.
        except Exception as error:
            raise WeightsError(
                f"{path} is cut off or damaged ({_cause(error)}), or "
                f"not a torch file (first bytes {head!r}); fetch or save it again."
            ) from error


class _Unpickler(pickle.Unpickler):
    """Admits what a mapping of tensors needs, and notes the storages it names."""

    def __init__(self, file: BinaryIO, path: pathlib.Path):
        # Files written by Python 2 hold bytes where names are meant.
        super().__init__(file, encoding="utf-8")
        self._path = path
        self.storages: dict[str, _Storage] = {}
        # A pickle can set attributes of what it is given: OrderedDict and tuples
        # refuse that, and the function is made anew for each unpickler.
        self._admitted: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _make_rebuild_tensor(),
            **{("torch", name): (name,) for name in _DTYPES},
        }

    def find_class(self, module: str, name: str) -> Any:
        """Returns the stand-in of an admitted name."""
        if (module, name) not in self._admitted:
            raise WeightsError(
                f"{self._path} names {module}.{name}, which is no part of a weights "
                "file: refused, nothing was executed. Save only the tensors: "
                "torch.save(model.state_dict(), path), or safetensors."
            )
        return self._admitted[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        """Notes a storage: its key, type and number of elements."""
        kind, (type_name,), key, _, size, *view = pid
        if kind != "storage" or type(key) is not str or not _is_size(size):
            # Not what it is: writing that down may take for ever.
            raise pickle.UnpicklingError("no storage")
        if any(view):
            raise WeightsError(
                f"{self._path} holds a view of a storage, as only torch before 0.4 "
                "wrote; load it with torch and save it again."
            )
        storage = _Storage(key, np.dtype(_DTYPES[type_name]), size)
        if self.storages.setdefault(key, storage) != storage:
            raise pickle.UnpicklingError(f"two storages have the key {key}")
        return storage


def _make_rebuild_tensor() -> Callable[..., _Tensor]:
    def rebuild_tensor(
        storage: Any, offset: Any, shape: Any, strides: Any, *_: Any
    ) -> _Tensor:
        return _Tensor(storage, offset, shape, strides)

    return rebuild_tensor


def _read_legacy(
    file: BinaryIO, path: pathlib.Path
) -> tuple[dict[str, _Tensor], dict[str, np.ndarray]]:
    if _Unpickler(file, path).load() != _MAGIC_NUMBER:
        raise WeightsError(
            f"{path} is a pickle that torch did not write; save the tensors with "
            "torch.save(model.state_dict(), path), or as .safetensors or .npz."
        )
    version, system = (_Unpickler(file, path).load() for _ in range(2))
    if version != _PROTOCOL_VERSION or system["little_endian"] is not True:
        raise WeightsError(
            f"{path} has another of torch's protocols than {_PROTOCOL_VERSION}, or is "
            "not little-endian; save it again with a newer torch."
        )
    unpickler = _Unpickler(file, path)
    tensors = _check_tensors(unpickler.load(), path)
    end = os.fstat(file.fileno()).st_size
    storages = {}
    for key in _Unpickler(file, path).load():
        storage = unpickler.storages[key]
        size = int.from_bytes(file.read(8), "little", signed=True)
        num_bytes = size * storage.dtype.itemsize
        # Before reading, which would allocate whatever the file claims.
        if size != storage.size or num_bytes > end - file.tell():
            raise pickle.UnpicklingError(
                f"storage {key} should have {storage.size:,} elements"
            )
        storages[key] = np.frombuffer(file.read(num_bytes), storage.dtype)
    return tensors, storages


def _read_zip(
    file: BinaryIO, path: pathlib.Path
) -> tuple[dict[str, _Tensor], dict[str, np.ndarray]]:
    with zipfile.ZipFile(file) as archive:
        # Members may overlap, and torch compresses nothing: so no archive makes us
        # allocate more than it weighs.
        sizes = [info.file_size for info in archive.infolist()]
        if sum(sizes) > os.fstat(file.fileno()).st_size:
            raise pickle.UnpicklingError("its parts are larger than the file")
        roots = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise WeightsError(
                f"{path} is a zip archive without torch's data.pkl; give the file that "
                "torch.save wrote, or rename an archive of NumPy arrays to .npz."
            )
        root = roots[0].removesuffix("data.pkl")
        order = f"{root}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise WeightsError(
                f"{path} was written on a big-endian machine; load it with torch and "
                "save it again."
            )
        unpickler = _Unpickler(io.BytesIO(archive.read(roots[0])), path)
        tensors = _check_tensors(unpickler.load(), path)
        storages = {}
        for key, storage in unpickler.storages.items():
            content = archive.read(f"{root}data/{key}")
            if len(content) != storage.size * storage.dtype.itemsize:
                raise pickle.UnpicklingError(
                    f"storage {key} should have {storage.size:,} elements"
                )
            storages[key] = np.frombuffer(content, storage.dtype)
        return tensors, storages


def _check_tensors(content: Any, path: pathlib.Path) -> dict[str, _Tensor]:
    save = "save it with torch.save(model.state_dict(), path)"
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path} holds a {type(content).__name__}, expected a mapping from name "
            f"to tensor; {save}."
        )
    # Not content.items(), which the file can replace.
    for name, tensor in dict.items(content):
        if type(name) is not str or not isinstance(tensor, _Tensor):
            is_name = type(name) is str
            where = repr(name[:80]) if is_name else f"an {type(name).__name__} key"
            raise WeightsError(
                f"{path} holds a {type(tensor).__name__} under {where}, expected a "
                f"mapping from name to tensor; {save}."
            )
    return dict(dict.items(content))


def _create_array(
    tensor: _Tensor, storages: Mapping[str, np.ndarray], where: str
) -> np.ndarray:
    storage, offset, shape, strides = tensor
    sizes_are_whole = (
        isinstance(storage, _Storage)
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and len(shape) == len(strides)
        and all(_is_size(n) for n in (offset, *shape, *strides))
    )
    if not sizes_are_whole:
        raise pickle.UnpicklingError(f"{where} has no offset, shape and strides")
    num_elements = math.prod(shape)
    steps = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    end = offset + (steps + 1 if num_elements else 0)
    # More elements than the storage has would be one number many times over.
    if max(end, num_elements) > storage.size:
        raise WeightsError(
            f"{where} of shape {shape}, strides {strides} and offset {offset} lies "
            f"outside its {storage.size:,} stored numbers: refused; fetch or save the "
            "file again."
        )
    if not num_elements:
        return np.zeros(shape, storage.dtype)
    itemsize = storage.dtype.itemsize
    array = np.ndarray(
        shape,
        storage.dtype,
        storages[storage.key],
        offset * itemsize,
        [stride * itemsize for stride in strides],
    )
    if storage.dtype in (np.float16, ml_dtypes.bfloat16):
        array = array.astype(np.float32)
    array.flags.writeable = False
    return array


def _cause(error: Exception) -> str:
    return f"{error!s:.150}" or type(error).__name__


def _is_size(value: Any) -> bool:
    # Not isinstance: a bool is no size, and a file may hold one.
    return type(value) is int and value >= 0
