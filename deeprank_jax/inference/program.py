"""Check of an exported program, in a process of its own, before it is used.

A program may call functions of the process by name, have loops without end, or be made
to break its reader. It is therefore read, checked and run once, on empty images, in a
child process with limits of time and memory. The verdict is kept in the user's cache,
so that each model is checked once; those that this installation exports are trusted.
"""

import hashlib
import json
import math
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from absl import logging

from deeprank_jax import files, version
from deeprank_jax.errors import ArtifactError, WriteError
from deeprank_jax.inference import artifact, model_info
from deeprank_jax.inference.pretrained import cache_folder

if TYPE_CHECKING:
    from jax import export as jax_export
    import numpy as np

# Limits: bytes of a program, seconds of the processor and bytes of its trial.
_MAX_BYTES, _CPU_SECONDS, _MEMORY = 2**26, 120, 2**34
# Seconds by the clock, of which a busy host needs many for an honest program.
_SECONDS = 600
# Numbers in an array of the program; those with the batch are per image.
_MAX_ELEMENTS = 2**28
# Custom calls that only compute, and are those of `jax.export` itself.
_CUSTOM_CALLS = frozenset((
    "Sharding", "shape_assertion", "cu_threefry2x32_ffi",
    "stablehlo.dynamic_reduce_window", "stablehlo.dynamic_top_k",
    "stablehlo.dynamic_rng_bit_generator",
))  # fmt: skip
_CALL = re.compile(r'\bcustom_call\b(?: @"?([^"(]*)"?\()?')
_FORBIDDEN = re.compile(r"\b(?:stablehlo|mhlo)\.(infeed|outfeed|send|recv)\b")
_TENSOR = re.compile(r"tensor<((?:[\d?]+x)+)")
_FEW = 8

Weights = dict[str, "np.ndarray"]


def ensure_checked(model: artifact.Artifact) -> None:
    """Checks a model's program, unless this was done before.

    Raises:
      ArtifactError: The program is refused.
    """
    mark = _mark(model.checksums)
    if mark is not None and mark.is_file():
        return
    logging.info("%s: trying the program of this model, once.", model.path)
    reason = _try_in_child(model.path)
    if reason is not None:
        raise ArtifactError(
            f"{model.path}: its program is refused, because {reason}; export the run "
            "again, or ask for it where the model comes from."
        )
    _keep(mark)


def trust(folder: pathlib.Path) -> None:
    """Records that a program need not be checked, as it was made here.

    Args:
      folder: Folder of a model whose files are complete.
    """
    _keep(_mark(artifact.read_artifact(folder).checksums))


def read_program(model: artifact.Artifact, weights: Weights) -> "jax_export.Exported":
    """Reads a model's program and compares it with the weights and `model.json`.

    Args:
      model: Model, whose program is checked.
      weights: Weights by name.

    Raises:
      ArtifactError: It cannot be read, or takes or returns something else.
    """
    from jax import export as jax_export

    path = model.file(artifact.STABLEHLO)
    try:
        code = bytearray(files.read_bytes(path, _MAX_BYTES))
        program = jax_export.deserialize(code)
        _check_types(program, weights, model.info)
    # A damaged program raises anything.
    except Exception as error:
        raise ArtifactError(
            f"{path} cannot be used ({error!s:.200}); export the run again."
        ) from error
    return program


def _check_types(
    program: "jax_export.Exported", weights: Weights, info: dict[str, Any]
) -> None:
    import jax

    arguments, options = jax.tree.unflatten(program.in_tree, program.in_avals)
    if options or len(arguments) != 2 or not isinstance(arguments[0], dict):
        raise ValueError("its arguments are not weights and images")
    expected, images = arguments
    described = {name: (x.shape, str(x.dtype)) for name, x in weights.items()}
    needed = {name: (x.shape, str(x.dtype)) for name, x in expected.items()}
    if needed != described:
        names = sorted(
            str(name)
            for name in needed.keys() | described.keys()
            if needed.get(name) != described.get(name)
        )
        raise ValueError(f"the weights are not its own, e.g. {names[0]}")
    size = info["preprocessing"]["image_size"]
    if images.shape[1:] != (size, size, 3) or str(images.dtype) != "uint8":
        raise ValueError(f"its images are {images}, model.json says {size} pixels")
    dim, outputs = info["agreement"]["dim"], program.out_avals
    if len(outputs) != 1 or outputs[0].shape[1:] != (dim,):
        raise ValueError(f"it returns {outputs}, model.json says {dim} dimensions")
    if str(outputs[0].dtype) != "float32" or len(outputs[0].shape) != 2:
        raise ValueError(f"it returns {outputs[0]}, expected float32")


def check_text(text: str) -> None:
    """Checks the operations of a program.

    Args:
      text: Program as StableHLO's text.

    Raises:
      ValueError: It calls functions of the process, talks to other programs, or has
        an array that is too large.
    """
    for call in _CALL.finditer(text):
        if call[1] not in _CUSTOM_CALLS:
            raise ValueError(f"it calls {call[1]!r}, which is no part of a network")
    if match := _FORBIDDEN.search(text):
        raise ValueError(f"it has {match[1]!r}, which is no part of a network")
    for shape in set(_TENSOR.findall(text)):
        sizes = [int(size) for size in shape.split("x") if size not in ("", "?")]
        if math.prod(sizes) > _MAX_ELEMENTS:
            raise ValueError(f"it has an array of the shape {shape[:-1]}")


def _try_in_child(folder: pathlib.Path) -> str | None:
    """Returns the reason to refuse a program, None if it passes its trial.

    Raises:
      ArtifactError: The host is too busy to tell.
    """
    root = str(pathlib.Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    try:
        trial = subprocess.run(
            [sys.executable, "-m", __spec__.name, os.fspath(folder.absolute())],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ArtifactError(
            f"{folder}: the trial of its program took longer than {_SECONDS} seconds; "
            "try again when the machine is less busy."
        ) from error
    if trial.returncode == -signal.SIGXCPU:
        return f"it has not ended after {_CPU_SECONDS} seconds of the processor"
    try:
        reason = json.loads(trial.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        lines = trial.stderr.decode(errors="replace").strip().splitlines() or [""]
        last = f" ({lines[-1]:.300})" if lines[-1] else ""
        return f"its trial ended with the status {trial.returncode}{last}"
    return None if reason is None else str(reason)


def _try(folder: pathlib.Path) -> str | None:
    """Returns the reason to refuse a program; runs in the child."""
    import jax
    import numpy as np

    try:
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_AS, _MEMORY)
        _limit(resource.RLIMIT_CPU, _CPU_SECONDS)
        model = artifact.read_artifact(folder)
        model_info.check_info(model.info)
        weights = artifact.read_weights(model)
        program = read_program(model, weights)
        check_text(program.mlir_module())
        size = model.info["preprocessing"]["image_size"]
        images = np.zeros((_FEW, size, size, 3), np.uint8)
        if "cpu" not in program.platforms:
            return "it cannot be tried, since it is not for cpu"
        jax.block_until_ready(jax.jit(program.call)(weights, images))
    except Exception as error:
        return f"{error!s:.300}" or type(error).__name__
    return None


def _limit(kind: int, value: int) -> None:
    """Sets a limit of this process, unless it is lower already."""
    soft, hard = resource.getrlimit(kind)
    finite = [x for x in (value, soft, hard) if x != resource.RLIM_INFINITY]
    # The hard limit of the processor's time would end the process by another signal.
    resource.setrlimit(kind, (min(finite), hard))


def _mark(checksums: dict[str, str]) -> pathlib.Path | None:
    """Returns the file that exists once a program was checked, None if none can."""
    names = (artifact.INFO, artifact.STABLEHLO, artifact.WEIGHTS)
    content = " ".join([version.number(), *(checksums[name] for name in names)])
    digest = hashlib.sha256(content.encode()).hexdigest()[:32]
    try:
        mark = cache_folder() / "checked" / digest
        mark.is_file()  # Another user's folder may be closed.
    except (ArtifactError, OSError) as error:
        _warn_of_cache(error)
        return None
    return mark


def _keep(mark: pathlib.Path | None) -> None:
    if mark is None:
        return
    try:
        files.create_folder(mark.parent)
        files.write_text(mark, "")
    except WriteError as error:
        _warn_of_cache(error)


def _warn_of_cache(error: Exception) -> None:
    logging.warning(
        "The check of the program is repeated in each use, as its verdict cannot be "
        "kept: set XDG_CACHE_HOME to a folder that you may write to. (%s)", error
    )  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(_try(pathlib.Path(sys.argv[1]))))
