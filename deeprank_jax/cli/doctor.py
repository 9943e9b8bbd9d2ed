"""Prints versions, devices, folders and extras, or checks what is stored in a folder.

  deeprank doctor
  deeprank doctor runs/emoji

The first is for a bug report. The second tells whether a run, a model, an index, a
table of embeddings, finished or not, or a trained similarity is as it was written, and
changes nothing.
"""

import argparse
from collections.abc import Iterator, Mapping
import importlib.metadata
import os
import pathlib
import platform
import re
import shutil

from deeprank_jax.cli import arguments
from deeprank_jax.cli.output import Result

USES_JAX = False  # Its flags are reported as the user has set them.

_DISTRIBUTION = "deeprank-jax"
_PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "pillow",
    "opencv-python-headless", "ml_collections", "tensorflow-datasets", "array-record",
    "pyarrow", "scikit-learn", "safetensors", "faiss-cpu",
)  # fmt: skip
_VARIABLES = (
    "XLA_FLAGS", "JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_X64",
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TFDS_DATA_DIR",
)  # fmt: skip
_REQUIREMENT = re.compile(r"([\w.-]+)\s*(?:\[([^\]]*)\])?")
_EXTRA = re.compile(r"""extra\s*==\s*["']([\w-]+)["']""")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "path", metavar="FOLDER", nargs="?", type=arguments.PATH,
        help="run, exported model, index, trained similarity, or table of embeddings "
        "with its folder NAME.parts, to check",
    )  # fmt: skip


def run(options: argparse.Namespace) -> Result:
    """Inspects the installation, or checks a folder.

    Raises:
      DataError: The folder is damaged, or is not one of ours.
    """
    if options.path is not None:
        return _check_folder(pathlib.Path(options.path))
    report = inspect_installation()
    return Result(report, format_report(report))


def _check_folder(path: pathlib.Path) -> Result:
    from deeprank_jax.errors import DataError
    from deeprank_jax.experiments.verify import verify
    from deeprank_jax.inference import embedding_parts

    # A table that is not finished has its parts beside it.
    unfinished = embedding_parts.folder_of(path)
    is_unfinished = unfinished.is_dir() and not path.exists()
    path = unfinished if is_unfinished else path
    parts = verify(path)
    damaged = [f"{part}: {reason}" for part, reason in parts.items() if reason]
    if damaged:
        raise DataError(
            f"{path}: {len(damaged)} of {len(parts)} parts are damaged. "
            + "; ".join(damaged)
        )
    text = f"intact: {', '.join(parts) or 'nothing yet'}"
    if (path / embedding_parts.IDENTITY).exists():
        text += (
            f"\n{path} is of a table that is not finished: run the same `deeprank "
            "embed` again to continue, or delete the folder."
        )
    return Result({"intact": [*parts]}, text)


def inspect_installation() -> dict[str, object]:
    """Returns the facts about this installation by topic; the home folder is "~"."""
    from deeprank_jax import version

    report: dict[str, object] = {
        "version": _version(_DISTRIBUTION) or "not installed",
        "commit": version.commit(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) or "missing" for name in _PACKAGES},
        "devices": _devices(),
        "cores": _cores(),
        "environment": {x: os.environ[x] for x in _VARIABLES if x in os.environ},
        "caches": {str(path): _size(path) for path in _caches() if path.is_dir()},
        "free_disk": {
            str(path): _gib(shutil.disk_usage(path).free)
            for path in (pathlib.Path.home(), pathlib.Path.cwd())
            if path.is_dir()
        },
        "extras": {name: _extra(name) for name in _extras()},
    }
    return {key: _shorten(value) for key, value in report.items()}


def format_report(report: Mapping[str, object]) -> str:
    """Returns the facts as plain text.

    Args:
      report: Facts from `inspect_installation`.
    """
    lines = []
    for topic, value in report.items():
        if isinstance(value, Mapping):
            lines.append(f"\n{topic.replace('_', ' ')}")
            width = max(map(len, value), default=0)
            lines += [f"  {name:<{width}}  {text}" for name, text in value.items()]
            lines += [] if value else ["  none"]
        else:
            lines.append(f"{topic}: {value}")
    return "\n".join(lines)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> str:
    """Returns JAX's devices, or the reason for which JAX does not start."""
    try:
        import jax

        kinds = [f"{x.platform} ({x.device_kind})" for x in jax.local_devices()]
    # A broken driver or plug-in fails in its own way.
    except Exception as error:
        return f"JAX does not start: {type(error).__name__}: {error}"
    return ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))


def _cores() -> str:
    total = os.cpu_count() or 0
    usable = total
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    text = f"{usable} usable of {total}"
    if "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        text += f", {_gib(memory)} memory"
    return text


def _caches() -> list[pathlib.Path]:
    """Returns the folders in which results are cached, existing or not."""
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    programs = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    return [
        pathlib.Path(programs or pathlib.Path(root) / "deeprank_jax" / "xla"),
        pathlib.Path.cwd() / "data" / ".deeprank_cache",
    ]


def _size(folder: pathlib.Path) -> str:
    sizes = []
    for path in folder.rglob("*"):
        try:
            sizes.append(path.lstat().st_size)
        except OSError:  # Another process has removed it.
            continue
    return f"{_gib(sum(sizes))} in {len(sizes):,} files"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _extras() -> list[str]:
    try:
        metadata = importlib.metadata.metadata(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return []
    return metadata.get_all("Provides-Extra") or []


def _extra(name: str) -> str:
    missing = sorted(set(_missing(_DISTRIBUTION, name, frozenset())))
    if not missing:
        return "works"
    return f"missing {', '.join(missing)}: pip install '{_DISTRIBUTION}[{name}]'"


def _missing(
    distribution: str, extra: str, visited: frozenset[tuple[str, str]]
) -> Iterator[str]:
    """Yields the missing distributions of an extra, and of its own extras."""
    if (distribution, extra) in visited:
        return
    visited |= {(distribution, extra)}
    for requirement in importlib.metadata.requires(distribution) or ():
        text, _, marker = requirement.partition(";")
        match = _REQUIREMENT.match(text.strip())
        if match is None or extra not in _EXTRA.findall(marker):
            continue
        name, extras = match.groups()
        if _version(name) is None:
            yield name
            continue
        for nested in filter(None, map(str.strip, (extras or "").split(","))):
            yield from _missing(name, nested, visited)


def _shorten(value: object) -> object:
    """Returns a value with the home folder written as "~"."""
    home = str(pathlib.Path.home())
    if isinstance(value, Mapping):
        return {str(_shorten(key)): _shorten(part) for key, part in value.items()}
    if isinstance(value, str) and len(home) > 1:
        return re.sub(rf"{re.escape(home)}(?=/|$|[\s:,'\"])", "~", value)
    return value
