"""Safe reader of torch files of weights, without torch.

A torch file is a pickle, a program that may call any function by name. This reader
admits only the few names in a mapping of tensors, and replaces them by its own
placeholders: nothing is imported, and no code of a file is executed.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
import io
import math
import os
import pathlib
import pickle
from typing import IO, Any, NamedTuple
import zipfile

import ml_dtypes
import numpy as np

from deeprank_jax import files
from deeprank_jax.errors import WeightsError
from deeprank_jax.models.pretrained.pickle_check import check_pickle

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


class _Storage(NamedTuple):
    """A run of numbers in the file, of which tensors are views."""

    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    """Description of a tensor in a file, not yet checked."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


def read_torch(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a file of `torch.save(model.state_dict(), path)`, old format or new.

    Args:
      path: Path of the file.

    Returns:
      The arrays by name, in the file's order and read-only, as some may share their
      memory. float16 and bfloat16 become float32; other types do not change.

    Raises:
      WeightsError: The file names anything but tensors, is cut off or damaged, or
        is not a mapping of tensors.
    """
    path = pathlib.Path(path)
    with files.open_file(path) as file:
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
    """Unpickler that admits tensors only, and records the storages they refer to."""

    def __init__(self, file: IO[bytes], path: pathlib.Path):
        # Files written by Python 2 have names as bytes.
        super().__init__(file, encoding="utf-8")
        self._path = path
        self.storages: dict[str, _Storage] = {}
        # A pickle can set attributes of admitted objects: OrderedDict and tuples
        # refuse it, and each unpickler has a function of its own.
        self._admitted: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _make_rebuild_tensor(),
            **{("torch", name): (name,) for name in _DTYPES},
        }

    def find_class(self, module: str, name: str) -> Any:
        """Returns the placeholder of an admitted name."""
        if (module, name) not in self._admitted:
            raise WeightsError(
                f"{self._path} names {module}.{name}, which is no part of a weights "
                "file; it was refused and not executed. Save only the tensors: "
                "torch.save(model.state_dict(), path), or safetensors."
            )
        return self._admitted[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        """Records a storage: its key, type and number of elements."""
        kind, (type_name,), key, _, size, *view = pid
        if kind != "storage" or type(key) is not str or not _is_size(size):
            # Without its repr, which may take for ever.
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


def _unpickle(file: IO[bytes], path: pathlib.Path) -> tuple[Any, dict[str, _Storage]]:
    """Returns the object of a pickle in a file, and the storages it refers to."""
    start = file.tell()
    check_pickle(file)
    size = file.tell() - start
    file.seek(start)
    unpickler = _Unpickler(io.BytesIO(file.read(size)), path)
    return unpickler.load(), unpickler.storages


def _read_legacy(
    file: IO[bytes], path: pathlib.Path
) -> tuple[dict[str, _Tensor], dict[str, np.ndarray]]:
    if _unpickle(file, path)[0] != _MAGIC_NUMBER:
        raise WeightsError(
            f"{path} is a pickle that torch did not write; save the tensors with "
            "torch.save(model.state_dict(), path), or as .safetensors or .npz."
        )
    version, system = (_unpickle(file, path)[0] for _ in range(2))
    if version != _PROTOCOL_VERSION or system["little_endian"] is not True:
        raise WeightsError(
            f"{path} has another of torch's protocols than {_PROTOCOL_VERSION}, or is "
            "not little-endian; save it again with a newer torch."
        )
    content, declared = _unpickle(file, path)
    tensors = _check_tensors(content, path)
    end = os.fstat(file.fileno()).st_size
    storages = {}
    for key in _unpickle(file, path)[0]:
        storage = declared[key]
        size = int.from_bytes(file.read(8), "little", signed=True)
        num_bytes = size * storage.dtype.itemsize
        # Checked before reading, which would allocate any size that the file claims.
        if size != storage.size or num_bytes > end - file.tell():
            raise pickle.UnpicklingError(
                f"storage {key} should have {storage.size:,} elements"
            )
        storages[key] = np.frombuffer(file.read(num_bytes), storage.dtype)
    return tensors, storages


def _read_zip(
    file: IO[bytes], path: pathlib.Path
) -> tuple[dict[str, _Tensor], dict[str, np.ndarray]]:
    with zipfile.ZipFile(file) as archive:
        # Members may overlap, and torch does not compress: an archive must not make us
        # allocate more memory than its size.
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
        content, declared = _unpickle(io.BytesIO(archive.read(roots[0])), path)
        tensors = _check_tensors(content, path)
        storages = {}
        for key, storage in declared.items():
            numbers = archive.read(f"{root}data/{key}")
            if len(numbers) != storage.size * storage.dtype.itemsize:
                raise pickle.UnpicklingError(
                    f"storage {key} should have {storage.size:,} elements"
                )
            storages[key] = np.frombuffer(numbers, storage.dtype)
        return tensors, storages


def _check_tensors(content: Any, path: pathlib.Path) -> dict[str, _Tensor]:
    save = "save it with torch.save(model.state_dict(), path)"
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path} holds a {type(content).__name__}, expected a mapping from name "
            f"to tensor; {save}."
        )
    # Not content.items(), which the file can override.
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
    # More elements than the storage has would repeat numbers without limit.
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
    # Not isinstance: a bool, which a file may hold, is not a size.
    return type(value) is int and value >= 0
