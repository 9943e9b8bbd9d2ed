"""Classes between which another class lies: the nearest point on an arc of two."""

from collections.abc import Sequence
import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arc:
    """Place of a class beside the arc between two others.

    A class is the direction of the mean of its embeddings, and the arc the shortest way
    from one direction to the other.

    Attributes:
      ends: Numbers of the two classes, the nearer one first.
      end_cosines: Cosines of the class and each end.
      cosine: Cosine of the class and the nearest point of the arc.
      arc_cosine: Cosine of the two ends.
    """

    ends: tuple[int, int]
    end_cosines: tuple[float, float]
    cosine: float
    arc_cosine: float

    @property
    def end_angles(self) -> tuple[float, float]:
        """Angles of the class and each end, in degrees."""
        first, second = map(angle, self.end_cosines)
        return first, second

    @property
    def off_arc(self) -> float:
        """Angle of the class and the nearest point of the arc, in degrees."""
        return angle(self.cosine)

    @property
    def arc_angle(self) -> float:
        """Angle of the two ends, in degrees."""
        return angle(self.arc_cosine)


def angle(cosine: float) -> float:
    """Returns the angle of a cosine, in degrees; rounding beyond ±1 is cut."""
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


def class_directions(embeddings: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the direction of the mean of each class, `[C, D]` float64.

    Args:
      embeddings: `[N, D]` unit vectors.
      labels: `[N]` ints from 0 to `C - 1`, each of which has a row.

    Raises:
      ValueError: The mean of a class is zero, and so has no direction.
    """
    counts = np.bincount(labels)
    sums = np.zeros((len(counts), embeddings.shape[1]))
    np.add.at(sums, labels, np.asarray(embeddings, np.float64))
    lengths = np.linalg.norm(sums, axis=1)
    if np.any(lengths <= 1e-9 * np.maximum(counts, 1)):
        raise ValueError("the mean of a class is zero, and so has no direction.")
    return sums / lengths[:, None]


def find_arcs(directions: np.ndarray, label: int, num: int) -> list[Arc]:
    """Returns the pairs of classes between which a class lies, the best first.

    A class lies between two others if the point of their plane that is nearest to it is
    between them, and not an end. The best arc is the nearest one.

    Args:
      directions: `[C, D]` unit vectors, one for each class.
      label: Number of the class that is placed.
      num: Largest number of arcs to return.
    """
    others = np.flatnonzero(np.arange(len(directions)) != label)
    arcs: list[Arc] = []
    for i, first in enumerate(others):
        arcs += _arcs_from(directions, label, int(first), others[i + 1 :], num)
        arcs.sort(key=lambda arc: (-arc.cosine, arc.ends))
        del arcs[num:]
    return arcs


def place_on_arc(directions: np.ndarray, label: int, ends: Sequence[int]) -> Arc | None:
    """Returns the place of a class beside a given arc; None if it is not between.

    Args:
      directions: `[C, D]` unit vectors, one for each class.
      label: Number of the class that is placed.
      ends: Numbers of the two classes.
    """
    first, second = ends
    arcs = _arcs_from(directions, label, first, np.array([second]), 1)
    return arcs[0] if arcs else None


def _arcs_from(
    directions: np.ndarray, label: int, first: int, seconds: np.ndarray, num: int
) -> list[Arc]:
    """Returns the best arcs that begin at one class and have the class between.

    Args:
      directions: `[C, D]` unit vectors, one for each class.
      label: Number of the class that is placed.
      first: Number of the class at which they begin.
      seconds: `[S]` ints, classes at which they may end.
      num: Largest number of arcs.
    """
    a, b = (
        directions[first] @ directions[label],
        directions[seconds] @ directions[label],
    )
    across = directions[seconds] @ directions[first]
    # Weights of the two ends in the nearest point of their plane, times 1 - across².
    weight_a, weight_b = a - across * b, b - across * a
    spread = 1.0 - np.square(across)
    is_between = (weight_a > 0) & (weight_b > 0) & (spread > 1e-9)
    squares = np.where(is_between, weight_a * a + weight_b * b, 0.0)
    nearness = np.sqrt(squares / np.maximum(spread, 1e-9))
    order = np.argsort(-nearness, kind="stable")[:num]
    arcs = []
    for i in order[is_between[order]].tolist():
        ends = sorted([(-a, first), (-b[i], seconds[i])])
        arcs.append(
            Arc(
                ends=(int(ends[0][1]), int(ends[1][1])),
                end_cosines=(float(-ends[0][0]), float(-ends[1][0])),
                cosine=float(min(1.0, nearness[i])),
                arc_cosine=float(across[i]),
            )
        )
    return arcs
