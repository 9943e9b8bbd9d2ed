"""Figure of a classifier whose last layer has two numbers, and a digit it never saw.

Three kinds of scikit-learn's digits are learned; a fourth is placed by the network.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
import numpy as np
import optax
from sklearn import datasets

_LEARNED, _UNSEEN = (0, 4, 7), 6
_WIDTH, _STEPS, _RATE, _DECAY = 64, 400, 1e-2, 1e-2
# Where the axis of angles is cut, far from all digits.
_FIRST_ANGLE = -90
# Vectors of the classes, `[2, 3]`: as far apart as three can be.
_DIRECTIONS = np.array(
    [[np.cos(np.radians(x)), np.sin(np.radians(x))] for x in (90, 210, 330)], np.float32
).T
_COLORS = ("#2a78c2", "#0b7a56", "#8e5bb5")
_UNSEEN_COLOR = "#d08700"

Parameters = dict[str, jax.Array]


class _Digits(NamedTuple):
    """Images of scikit-learn's digits, `[N, 64]` from 0 to 16, and the digits `[N]`."""

    pixels: np.ndarray
    targets: np.ndarray


def draw() -> Figure:
    """Returns the plane of the two numbers, and the angles of the images in it."""
    digits = _Digits(*map(np.asarray, datasets.load_digits(return_X_y=True)))
    pixels = digits.pixels.astype(np.float32) / 16
    parameters = _train(pixels, digits.targets)
    points = np.asarray(_encode(parameters, jnp.asarray(pixels)))
    figure = Figure(figsize=(10.4, 4.9), layout="constrained", facecolor="white")
    plane, angles = figure.subplots(1, 2, width_ratios=(1.1, 1))
    _draw_plane(plane, points, digits)
    _draw_angles(angles, points, digits.targets)
    return figure


def _encode(parameters: Parameters, pixels: jax.Array) -> jax.Array:
    """Returns two numbers of each image, `[N, 2]`."""
    hidden = jax.nn.relu(pixels @ parameters["first"] + parameters["bias"])
    return hidden @ parameters["second"]


def _train(pixels: np.ndarray, targets: np.ndarray) -> Parameters:
    """Returns the encoder of the learned digits, trained by softmax.

    Args:
      pixels: `[N, 64]` float32 in [0, 1].
      targets: `[N]` ints, the digits.
    """
    keys = jax.random.split(jax.random.key(0))
    parameters = {
        "first": 0.15 * jax.random.normal(keys[0], (64, _WIDTH)),
        "bias": jnp.zeros(_WIDTH),
        "second": 0.15 * jax.random.normal(keys[1], (_WIDTH, 2)),
    }
    is_learned = np.isin(targets, _LEARNED)
    images = jnp.asarray(pixels[is_learned])
    labels = jnp.asarray(np.searchsorted(_LEARNED, targets[is_learned]))
    optimizer = optax.adamw(_RATE, weight_decay=_DECAY)

    def loss(parameters: Parameters) -> jax.Array:
        logits = _encode(parameters, images) @ _DIRECTIONS
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(parameters, state):
        updates, state = optimizer.update(jax.grad(loss)(parameters), state, parameters)
        return optax.apply_updates(parameters, updates), state

    state = optimizer.init(parameters)
    for _ in range(_STEPS):
        parameters, state = step(parameters, state)
    return parameters


def _draw_plane(axes: Axes, points: np.ndarray, digits: _Digits) -> None:
    """Draws the images as points, and the direction of each class as a line.

    Args:
      axes: Axes to draw into.
      points: `[N, 2]` numbers of the images.
      digits: Images and digits.
    """
    largest = np.abs(points[np.isin(digits.targets, _LEARNED)]).max()
    for number, color, direction in zip(_LEARNED, _COLORS, _DIRECTIONS.T, strict=True):
        axes.plot(*zip((0, 0), 1.1 * largest * direction, strict=True), color=color)
        _draw_digit(axes, points, digits, number, color, 1.28 * largest * direction)
    mean = points[digits.targets == _UNSEEN].mean(axis=0)
    end = 1.1 * largest * mean / np.linalg.norm(mean)
    axes.plot(*zip((0, 0), end, strict=True), "--", color=_UNSEEN_COLOR)
    _draw_digit(axes, points, digits, _UNSEEN, _UNSEEN_COLOR, 1.16 * end)
    axes.plot([0], [0], "k+")
    axes.set_aspect("equal")
    axes.set_xlim(-1.5 * largest, 1.5 * largest)
    axes.set_ylim(-1.5 * largest, 1.5 * largest)
    axes.set_title(
        f"learned: {', '.join(map(str, _LEARNED))}; never seen: {_UNSEEN}", fontsize=11
    )
    axes.set_xlabel("first number")
    axes.set_ylabel("second number")


def _draw_digit(
    axes: Axes,
    points: np.ndarray,
    digits: _Digits,
    number: int,
    color: str,
    place: np.ndarray,
) -> None:
    """Draws all images of a digit as points, and one of them at a place."""
    is_digit = digits.targets == number
    axes.plot(*points[is_digit].T, ".", color=color, markersize=4, alpha=0.5)
    picture = OffsetImage(
        digits.pixels[is_digit][0].reshape(8, 8), zoom=3.4, cmap="Greys"
    )
    box = AnnotationBbox(
        picture, tuple(place), pad=0.1, bboxprops={"edgecolor": color, "linewidth": 2}
    )
    axes.add_artist(box)


def _draw_angles(axes: Axes, points: np.ndarray, targets: np.ndarray) -> None:
    """Draws how the images of each digit spread over the angles of the plane."""
    angles = np.degrees(np.arctan2(points[:, 1], points[:, 0]))
    for number, color in zip(
        (*_LEARNED, _UNSEEN), (*_COLORS, _UNSEEN_COLOR), strict=True
    ):
        axes.hist(
            (angles[targets == number] - _FIRST_ANGLE) % 360 + _FIRST_ANGLE,
            bins=list(range(_FIRST_ANGLE, _FIRST_ANGLE + 361, 6)),
            density=True,
            color=color,
            alpha=0.6,
            label=f"{number}" + (", never seen" if number == _UNSEEN else ""),
        )
    axes.set_xticks(range(_FIRST_ANGLE, _FIRST_ANGLE + 361, 60))
    axes.set_xlabel("angle of an image's two numbers, in degrees")
    axes.set_ylabel("density")
    axes.legend(title="digit")
