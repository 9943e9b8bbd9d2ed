"""What each command of `deeprank` does, prints and draws."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import csv
import io
import os
import pathlib
from typing import IO, Any

import numpy as np

from deeprank_jax import errors, export, files
from deeprank_jax.data.records import Records
from deeprank_jax.descriptors.pixels import pixels
from deeprank_jax.inference import artifact, bulk, embedding_table, index_origins
from deeprank_jax.inference.model import AnyImage, Model, decode
from deeprank_jax.inference.sources import PREFIX, open_source
from deeprank_jax.report import contact_sheet
from deeprank_jax.search import grouping, store, votes
from deeprank_jax.search.index import VectorIndex as Index

# How much of a sheet is still looked at.
_MAX_GROUPS, _MAX_TILES = 60, 24
_MAX_RANKED = 96
_ADDED_AT_ONCE = 1024


def run_export(
    *, workdir: str, out: str, precision: float, onnx_python: str | None
) -> None:
    """Exports a run."""
    folder = export.export_run(
        workdir, out, precision=precision, onnx_python=onnx_python
    )
    info = artifact.read_artifact(folder).info
    print(f"Model:   {folder}\nCard:    {folder / artifact.CARD}")
    for form in ("stablehlo", "onnx"):
        if form in info["agreement"]:
            print(f"{form} differs by {info['agreement'][form]:.1e} at most.")


def run_embed(
    *, source: str, model: str, data_dir: str, label_feature: str, out: str
) -> None:
    """Writes embeddings."""
    loaded, records = _open(model, source, data_dir, label_feature)
    num, num_bad = embedding_table.embed_to_file(loaded, records, out)
    print(f"Wrote {num:,} embeddings of {loaded.embedding_dim} numbers to {out}.")
    if num_bad:
        print(f"{num_bad:,} images could not be read; {out}.bad.csv says why.")


def run_compare(*, images: Sequence[str], model: str, out: str | None) -> None:
    """Compares two images."""
    path = None if out is None else contact_sheet.check_suffix(out)
    found = Model(model).compare(*images)
    print(found)
    if path is not None:
        verdict = {True: "similar", False: "not similar", None: ""}[found.is_similar]
        tiles = [
            _tile(_show(lambda image=image: image), image, frame=verdict)
            for image in images
        ]
        group = contact_sheet.Group(heading=str(found), tiles=tiles)
        _write(path, "Two images compared", [group])


def run_index(
    *,
    source: str,
    model: str,
    data_dir: str,
    label_feature: str,
    out: str,
    kind: str | None,
    metric: str | None,
) -> None:
    """Adds images to an index, which is created if it is not there."""
    if not source.startswith(PREFIX):
        # So that a search shows the images wherever it is run.
        source = os.path.abspath(source)
    loaded, records = _open(model, source, data_dir, label_feature)
    with _open_index(pathlib.Path(out), loaded, kind, metric) as index:
        index_origins.write_origins(
            out,
            model=model,
            source=source,
            data_dir=data_dir,
            label_feature=label_feature,
        )
        before = len(index)
        # A list may name an image twice.
        known, wanted = set(index.ids()), []
        for i in range(len(records)):
            if records.describe(i) not in known:
                known.add(records.describe(i))
                wanted.append(i)
        added = 0
        parts = bulk.embed_parts(loaded, records, np.array(wanted, int), _ADDED_AT_ONCE)
        for rows, indices in parts:
            added += len(indices)
            if len(indices):
                labels, names = zip(*(_told(records, i) for i in indices), strict=True)
                index.add(names, rows, labels)
        if len(wanted) and not added:
            raise bulk.none_readable(records.name, len(wanted))
        if index.kind == "hnsw":
            index.prepare()
        print(
            f"{out}: {len(index) - before:,} images added, {len(index):,} in all "
            f"({index.kind}, {index.metric})."
        )


def _open_index(
    path: pathlib.Path, model: Model, kind: str | None, metric: str | None
) -> Index:
    """Opens an index to add to it, or creates it."""
    if not (path / store.MANIFEST).exists():
        return Index.create(
            path,
            dim=model.embedding_dim,
            model_fingerprint=model.fingerprint,
            metric=metric or "squared_euclidean",
            kind=kind or "auto",
        )
    index = Index.open(path, model_fingerprint=model.fingerprint, writable=True)
    for name, wanted, found in (
        ("metric", metric, index.metric),
        ("kind", kind if kind != "auto" else None, index.kind),
    ):
        if wanted not in (None, found):
            index.close()
            raise errors.DataError(
                f"{path} is there already, with the {name} {found}: leave out "
                f"--{name}, or give another --out."
            )
    return index


def run_search(
    *,
    image: str,
    index: str,
    model: str | None,
    k: int,
    label: Sequence[str] | None,
    out: str | None,
) -> None:
    """Finds the images nearest to one."""
    path = None if out is None else contact_sheet.check_suffix(out)
    known = index_origins.read_origins(index)
    loaded = Model(model or known.model)
    opened = Index.open(index, model_fingerprint=loaded.fingerprint)
    found = opened.search(loaded.embed(image), k, labels=label)
    hits = [
        (float(distance), name, text)
        for distance, name, text in zip(
            found.distances[0], found.ids[0], found.labels[0], strict=True
        )
        if name is not None
    ]
    if not hits:
        raise errors.DataError(
            f"{index} holds no image with the label {' or '.join(label or ())}."
        )
    _print_table(
        ("rank", "distance", "label", "path"),
        [(i + 1, f"{d:.4f}", text, name) for i, (d, name, text) in enumerate(hits)],
    )
    near = loaded.cluster_distance
    if near is not None and opened.metric == "cosine":
        near /= 2  # Of unit vectors, 1 - cosine is half of the squared distance.
    shares = votes.vote(
        [text for _, _, text in hits], np.array([d for d, _, _ in hits]), near or 1.0
    )
    told = ", ".join(f"{text or 'no label'} {share:.0%}" for text, share in shares[:5])
    print(f"Labels by vote: {told}.")
    if path is not None:
        find = known.create_reader(loaded.data_config)
        answers = contact_sheet.Group(
            heading=f"nearest{_framed(near)}; labels by vote: {told}",
            tiles=[
                _tile(_show(lambda name=name: find(name)), name, text, distance, near)
                for distance, name, text in hits
            ],
        )
        _write(path, f"Nearest to {image}", [_asked(image), answers])


def run_rank(
    *,
    source: str,
    model: str,
    data_dir: str,
    label_feature: str,
    image: str,
    out: str | None,
) -> None:
    """Sorts images by similarity to one."""
    path = _check_out(out)
    loaded, records = _open(model, source, data_dir, label_feature)
    query = loaded.embed(image)
    rows, ok = bulk.embed_records(loaded, records)
    distances = np.sum(np.square(rows - query), axis=1)
    order = np.argsort(distances, kind="stable")
    table = [
        (i + 1, f"{distances[row]:.4f}", *_told(records, ok[row]))
        for i, row in enumerate(order)
    ]
    _finish(path, ("rank", "distance", "label", "path"), table)
    near = loaded.cluster_distance
    if path is not None and path.suffix != ".csv":
        ranked = contact_sheet.Group(
            heading=_of(_MAX_RANKED, len(order), "images, nearest first")
            + _framed(near),
            tiles=[
                _record_tile(records, ok[row], distances[row], near)
                for row in order[:_MAX_RANKED]
            ],
        )
        _write(
            path, f"{records.name} by similarity to {image}", [_asked(image), ranked]
        )


def run_duplicates(
    *,
    source: str,
    model: str,
    data_dir: str,
    label_feature: str,
    max_distance: float | None,
    out: str | None,
) -> None:
    """Finds copies among images."""
    path = _check_out(out)
    loaded, records = _open(model, source, data_dir, label_feature)
    looks: list[np.ndarray] = []
    rows, ok = bulk.embed_records(
        loaded, records, watch=lambda images: looks.append(pixels(images))
    )
    if max_distance is None:
        copies = loaded.artifact.info["copies"]
        max_distance = float(copies["distance"])
        near = np.concatenate(looks)[ok], float(copies["pixel_distance"])
        found = grouping.find_duplicates(rows, max_distance, *near)
    else:
        found = grouping.find_duplicates(rows, max_distance)
    groups = [ok[group] for group in found]
    num = sum(len(group) - 1 for group in groups)
    _print_groups(
        path,
        records,
        groups,
        f"{num:,} of {len(ok):,} images are copies of others within {max_distance:.4f}",
    )


def run_clusters(
    *,
    source: str,
    model: str,
    data_dir: str,
    label_feature: str,
    max_distance: float | None,
    num: int | None,
    out: str | None,
) -> None:
    """Groups images."""
    path = _check_out(out)
    loaded, records = _open(model, source, data_dir, label_feature)
    if num is None and max_distance is None:
        max_distance = loaded.cluster_distance
        if max_distance is None:
            raise ValueError(
                f"{model} knows no distance for clusters: give --max_distance or "
                "--num, to say when images belong together."
            )
    rows, ok = bulk.embed_records(loaded, records)
    found = grouping.find_clusters(rows, max_distance=max_distance, num=num)
    groups = [ok[group] for group in found]
    text = f"{len(groups):,} clusters of {len(ok):,} images"
    _print_groups(path, records, groups, text)


def _print_groups(
    path: pathlib.Path | None,
    records: Records,
    groups: Sequence[np.ndarray],
    title: str,
) -> None:
    table = [
        (number + 1, *_told(records, index))
        for number, group in enumerate(groups)
        for index in group
    ]
    _finish(path, ("group", "label", "path"), table)
    print(f"{title}.")
    if path is not None and path.suffix != ".csv":
        shown = [
            contact_sheet.Group(
                heading=f"{number + 1}: {_of(_MAX_TILES, len(group), 'images')}",
                tiles=[_record_tile(records, i) for i in group[:_MAX_TILES]],
            )
            for number, group in enumerate(groups[:_MAX_GROUPS])
        ]
        more = f" ({_MAX_GROUPS} shown)" if len(groups) > _MAX_GROUPS else ""
        _write(path, f"{title}{more}", shown)


def _open(
    model: str, source: str, data_dir: str, label_feature: str
) -> tuple[Model, Records]:
    loaded = Model(model)
    records = open_source(
        source,
        data_dir=data_dir,
        like=loaded.data_config,
        label_feature=label_feature,
    )
    return loaded, records


def _show(load: Callable[[], AnyImage]) -> np.ndarray:
    """Returns an image's pixels; a grey square for one that is gone by now."""
    try:
        return decode(load(), "")
    except (ValueError, OSError):
        return np.full((8, 8, 3), 200, np.uint8)


def _asked(image: str) -> contact_sheet.Group:
    tile = _tile(_show(lambda: image), image, frame="query")
    return contact_sheet.Group(heading="query", tiles=[tile])


def _told(records: Records, index: int) -> tuple[str, str]:
    return records.label_name(int(index)), records.describe(int(index))


def _record_tile(
    records: Records,
    index: int,
    distance: float | None = None,
    near: float | None = None,
) -> contact_sheet.Tile:
    label, name = _told(records, index)
    image = _show(lambda: records.read(int(index)))
    return _tile(image, name, label, distance, near)


def _tile(
    image: np.ndarray,
    name: str,
    label: str = "",
    distance: float | None = None,
    near: float | None = None,
    *,
    frame: str = "",
) -> contact_sheet.Tile:
    lines = [label or pathlib.PurePath(name).name]
    if distance is not None:
        lines.append(f"{distance:.4f}")
        if near is not None:
            frame = "near" if distance <= near else "far"
    return contact_sheet.Tile(image=image, lines=lines, title=name, frame=frame)


def _framed(near: float | None) -> str:
    """Returns what the frames say."""
    return "" if near is None else f", framed green within {near:.4f} and red beyond"


def _of(shown: int, num: int, what: str) -> str:
    return f"{num:,} {what}" + (f", {shown} shown" if num > shown else "")


def _check_out(out: str | None) -> pathlib.Path | None:
    """Returns where a picture or a table goes.

    Raises:
      ValueError: it is none of the kinds that are written.
    """
    if out is None or out.endswith(".csv"):
        return None if out is None else pathlib.Path(out)
    return contact_sheet.check_suffix(out)


def _finish(
    path: pathlib.Path | None, names: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    """Writes the table as CSV if it is asked for, else prints it."""
    if path is None or path.suffix != ".csv":
        _print_table(names, rows)
        return
    text = io.StringIO(newline="")
    csv.writer(text).writerows([names, *rows])
    with _writing(path) as file:
        file.write(text.getvalue().encode("utf-8", "backslashreplace"))
    print(f"Wrote {path}.")


def _print_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    texts = [tuple(map(str, row)) for row in (names, *rows)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(names))]
    for row in texts:
        cells = (text.ljust(w) for text, w in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _write(
    path: pathlib.Path, title: str, groups: Sequence[contact_sheet.Group]
) -> None:
    with _writing(path) as file:
        contact_sheet.write_sheet(file, path.suffix, title, groups)
    print(f"Wrote {path}.")


@contextlib.contextmanager
def _writing(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """Opens a file that is there whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as file:
            yield file
    except OSError as error:
        raise OSError(
            f"{path} cannot be written ({error.strerror or error}); make room, or give "
            "an --out that you may write to."
        ) from error


COMMANDS: Mapping[str, Callable[..., None]] = {
    "export": run_export,
    "embed": run_embed,
    "compare": run_compare,
    "index": run_index,
    "search": run_search,
    "rank": run_rank,
    "duplicates": run_duplicates,
    "clusters": run_clusters,
}
