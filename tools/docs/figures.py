r"""Figures of the docs, drawn with the package's own data, relevance and losses.

  python -m tools.docs.figures --out=docs/images

For docs/relevance.md twelve images of birds and cars are made up: labels, and vectors
of two numbers; for docs/similarities.md digits are learned by `two_numbers`. Views of
photographs are those of the config `photo_views`.
"""

import argparse
import pathlib

import jax.numpy as jnp
from matplotlib import patches
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
import numpy as np
from PIL import Image

from deeprank_jax.data.decode import decode_image
from deeprank_jax.data.sources import photo_views_builder
from deeprank_jax.losses import mining
from deeprank_jax.relevance import create_relevance
from tools.docs import two_numbers

_NAMES = [f"{n} {i}" for n in ("robin", "wren", "van", "coupé") for i in (1, 2, 3)]
_LABELS = np.repeat([[0, 0], [0, 1], [1, 2], [1, 3]], 3, axis=0)
_VECTORS = np.array(
    [
        [0, 0], [0.3, 0.4], [0.2, -0.4], [0.52, 0.18], [1.0, 0.2], [1.1, -0.4],
        [0, 0], [0.4, 0.1], [0.7, 0.4], [0.9, -0.1], [1.3, 0.2], [1.4, -0.3],
    ],
    np.float32,
)  # fmt: skip
_LEVELS, _GAP, _POSITIVE = (0.4, 1.0), 0.1, 1
# Embeddings of the twelve images by a network at an early step; the first is the
# anchor.
_EMBEDDINGS = np.array(
    [
        [0, 0], [0.52, 0.3], [-0.75, 0.35], [-0.4, 0.6], [0.25, -0.32], [0.75, 0.52],
        [0.1, 0.83], [-0.75, -0.5], [0.5, -0.75], [1.05, -0.2], [-0.15, -0.98],
        [-1.1, 0.05],
    ],
    np.float32,
)  # fmt: skip
# Places of photographs that may be used freely.
_PLACES = ("cat_2_3", "coffee_2_5", "galaxies_4_6")
_FRAME = ((2, 2), (2, 2), (0, 0))
_BLUE, _GREEN, _RED, _GREY = "#2a78c2", "#0b7a56", "#c2412d", "#bbbbbb"


def main() -> None:
    """Writes the figures."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs.figures")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("docs/images"),
        help="folder to write to (default: %(default)s)",
    )
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    figures = {
        "relevance": _draw_kinds,
        "triplets": _draw_triplets,
        "two_numbers": two_numbers.draw,
    }
    for name, draw in figures.items():
        # Without the version of the library, the same picture is the same file.
        draw().savefig(out / f"{name}.png", dpi=100, metadata={"Software": None})
        print(f"Wrote {out / name}.png.")
    _draw_views().save(out / "photo_views.png", optimize=True)
    print(f"Wrote {out / 'photo_views.png'}.")


def _draw_views() -> Image.Image:
    """Returns a picture with a row for each place, of its six views."""
    examples = list(photo_views_builder.generate_views("test"))
    rows = [
        np.hstack(
            [
                np.pad(decode_image(x["image"]), _FRAME, constant_values=255)
                for _, x in examples
                if x["place"] == place
            ]
        )
        for place in _PLACES
    ]
    picture = Image.fromarray(np.vstack(rows))
    large = picture.resize(
        [2 * side for side in picture.size], Image.Resampling.NEAREST
    )
    # As many colours as a small file has room for.
    return large.quantize(256)


def _kinds() -> dict[str, np.ndarray]:
    """Returns the relevance of all pairs by each of three kinds, `[12, 12]`."""
    within = create_relevance("embedding", file="", scale=0.5, category_level=0)
    vectors = np.concatenate([_LABELS[:, :1].astype(np.float32), _VECTORS], axis=1)
    every = {
        "same_class": (create_relevance("same_class"), _LABELS),
        f"hierarchy, {_LEVELS}": (
            create_relevance("hierarchy", levels=_LEVELS),
            _LABELS,
        ),
        "embedding, inside a category": (within, vectors),
    }
    return {
        name: np.asarray(relevance.pairwise(x[:, None], x[None]))
        for name, (relevance, x) in every.items()
    }


def _draw_kinds() -> Figure:
    figure = Figure(figsize=(10.4, 3.8), layout="constrained", facecolor="white")
    axes = figure.subplots(1, 3, sharey=True)
    shades = ScalarMappable(Normalize(0.0, 1.0), "Blues")
    for axis, (name, table) in zip(axes, _kinds().items(), strict=True):
        axis.imshow(table, cmap=shades.cmap, norm=shades.norm)
        axis.set_title(name, fontsize=11)
        axis.set_xticks(range(12), _NAMES, rotation=90, fontsize=9)
        axis.set_yticks(range(12), _NAMES, fontsize=9)
        for edge in (2.5, 5.5, 8.5):
            width = 1.6 if edge == 5.5 else 0.6
            axis.axhline(edge, color="#888", linewidth=width)
            axis.axvline(edge, color="#888", linewidth=width)
    figure.colorbar(shades, ax=axes, shrink=0.8, label="relevance")
    return figure


def _draw_triplets() -> Figure:
    figure = Figure(figsize=(10.4, 4.6), layout="constrained", facecolor="white")
    bars, plane = figure.subplots(1, 2)
    relevance = list(_kinds().values())[-1][0]
    is_valid = np.asarray(
        mining.is_less_relevant(relevance, relevance[_POSITIVE], _GAP)
    )
    _draw_valid(bars, relevance, is_valid)
    _draw_plane(plane, relevance, is_valid)
    return figure


def _draw_valid(axis: Axes, relevance: np.ndarray, is_valid: np.ndarray) -> None:
    order = [i for i in np.argsort(-relevance, kind="stable") if i]
    colors = [
        _BLUE if i == _POSITIVE else _GREEN if is_valid[i] else _GREY for i in order
    ]
    axis.barh(range(len(order)), relevance[order], color=colors)
    axis.set_yticks(range(len(order)), [_NAMES[i] for i in order], fontsize=9)
    for label, color in zip(axis.get_yticklabels(), colors, strict=True):
        label.set_color("#777" if color == _GREY else color)
    axis.invert_yaxis()
    most = relevance[_POSITIVE] - _GAP
    axis.axvspan(most, relevance[_POSITIVE], color="#f3d9a4", zorder=0)
    axis.set_xlabel(f"relevance to {_NAMES[0]}, the anchor; the band is $T_r$ wide")
    axis.set_title("Valid negatives", fontsize=11)
    roles = {"positive": _BLUE, "valid negative": _GREEN, "neither": _GREY}
    handles = [patches.Patch(color=color, label=name) for name, color in roles.items()]
    axis.legend(handles=handles, loc="lower right", fontsize=9)


def _draw_plane(axis: Axes, relevance: np.ndarray, is_valid: np.ndarray) -> None:
    candidates = dict(
        positive_relevance=jnp.asarray(relevance[[_POSITIVE]]),
        relevance=jnp.asarray(relevance[None]),
        min_relevance_gap=_GAP,
    )
    images = jnp.asarray(_EMBEDDINGS)
    anchor, positive = images[:1], images[_POSITIVE : _POSITIVE + 1]
    semi_hard, _ = mining.semi_hard_negatives(anchor, positive, images, **candidates)
    columns = dict(columns=jnp.array([0]), positive_columns=jnp.array([_POSITIVE]))
    farthest, hardest, _ = mining.hardest_pairs(anchor, images, **columns, **candidates)
    notes = {0: "anchor", _POSITIVE: "positive", int(semi_hard[0]): "semi-hard"}
    notes[int(hardest[0])] = "batch-hard"
    notes.setdefault(int(farthest[0]), "batch-hard's positive")
    for i, (x, y) in enumerate(_EMBEDDINGS):
        color = _BLUE if i in (0, _POSITIVE) else _GREEN if is_valid[i] else _GREY
        axis.scatter(x, y, s=90, color=color, marker="*" if i == 0 else "o", zorder=2)
        text = f"{_NAMES[i]}\n{notes.get(i, '')}".strip()
        weight = "bold" if i in notes else "normal"
        axis.annotate(
            text, (x, y), (7, -3), textcoords="offset points", fontsize=8,
            weight=weight, va="top",
        )  # fmt: skip
    radius = float(np.linalg.norm(positive))
    axis.add_patch(patches.Circle((0, 0), radius, fill=False, edgecolor=_BLUE))
    axis.set(xlim=(-1.4, 1.5), ylim=(-1.25, 1.15), aspect="equal", xticks=[], yticks=[])
    axis.set_title("Negatives selected by mining, by distance", fontsize=11)


if __name__ == "__main__":
    main()
