"""Schema of `model.json`, and of what a model in use needs of `config.json`."""

from collections.abc import Callable, Mapping
import math
import re
from typing import Any

import ml_collections

from deeprank_jax import config as config_lib
from deeprank_jax import files
from deeprank_jax.errors import ArtifactError
from deeprank_jax.inference import artifact

_MAX_IMAGE_SIZE, _MAX_DIM, _MAX_DEPTH = 4096, 65_536, 20

_Check = Callable[[Any], bool]


def read_config(model: artifact.Artifact) -> dict[str, Any]:
    """Returns the config of the exported run, once it and `model.json` are checked.

    Raises:
      ArtifactError: One of them is not what it should be.
    """
    path = model.file(artifact.INFO)
    try:
        check_info(model.info)
        path = model.file(artifact.CONFIG)
        config = config_lib.upgrade_config(files.read_json(path))
        check_config(config)
        ml_collections.ConfigDict(config)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(
            f"{path} cannot be used: {error!s:.300}; export the run again."
        ) from error
    return config


def check_info(info: Mapping[str, Any]) -> None:
    """Checks the contents of a `model.json`.

    Raises:
      ValueError: An entry is missing, or is not what it should be.
    """
    for path, (expected, check) in _INFO.items():
        _check(info, path.split("."), expected, check)
    for name in ("no_threshold", "no_cluster_distance"):
        if name in info:
            _check(info, [name], *_TEXT)
    if info.get("familiar") is not None:  # Models of earlier versions have none.
        _check(info, ["familiar", "distance"], *_DISTANCE)
    if info["threshold"] is not None:
        _check(info, ["threshold", "distance"], *_DISTANCE)


def check_config(config: object) -> None:
    """Checks the contents of a `config.json`.

    Raises:
      ValueError: An entry is missing, or is not what it should be.
    """
    if not isinstance(config, dict):
        raise ValueError(f"it is a {type(config).__name__}, expected an object")
    _check_depth(config, _MAX_DEPTH)
    for path, (expected, check) in _CONFIG.items():
        _check(config, path.split("."), expected, check)


def _check_depth(value: object, depth: int) -> None:
    if not depth:
        raise ValueError(f"it is nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _check_depth(part, depth - 1)


def _check(
    content: Mapping[str, Any], keys: list[str], expected: str, check: _Check
) -> None:
    value: Any = content
    name = ".".join(keys)
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            raise ValueError(f"{name} is missing")
        value = value[key]
    if not check(value):
        raise ValueError(f"{name} is {value!r:.60}, expected {expected}")


def _whole(low: int, high: int) -> tuple[str, _Check]:
    return (
        f"a whole number from {low:,} to {high:,}",
        lambda x: type(x) is int and low <= x <= high,
    )


def _is_distance(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def _or_null(kind: tuple[str, _Check]) -> tuple[str, _Check]:
    expected, check = kind
    return f"{expected} or null", lambda x: x is None or check(x)


_TEXT = ("a text of at most 1,000 characters",
         lambda x: isinstance(x, str) and len(x) <= 1000)  # fmt: skip
_OBJECT = ("an object", lambda x: isinstance(x, dict))
_DISTANCE = ("a number, at least 0", _is_distance)
_INFO: Mapping[str, tuple[str, _Check]] = {
    "fingerprint": (
        "at most 64 letters and digits",
        lambda x: isinstance(x, str) and bool(re.fullmatch("[0-9A-Za-z]{1,64}", x)),
    ),
    "preprocessing.image_size": _whole(1, _MAX_IMAGE_SIZE),
    "preprocessing.fit": (
        '"crop", "pad" or "stretch"',
        lambda x: x in ("crop", "pad", "stretch"),
    ),
    "preprocessing.max_pixels": _whole(1, 2**31),
    "agreement.dim": _whole(1, _MAX_DIM),
    "threshold": _or_null(_OBJECT),
    "cluster_distance": _or_null(_DISTANCE),
    "copies.distance": _DISTANCE,
    "copies.pixel_distance": _DISTANCE,
    "dataset.name": _TEXT,
    "network": _TEXT,
}
_CONFIG: Mapping[str, tuple[str, _Check]] = {
    "task": (
        "a text or an object with a name",
        lambda x: (
            isinstance(x, str)
            or (isinstance(x, dict) and isinstance(x.get("name"), str))
        ),
    ),
    "data": _OBJECT,
    "data.dir": _TEXT,
    "data.source": _OBJECT,
    "data.source.name": _TEXT,
}
