"""Random augmentation of groups, e.g. of triplets.

Convention: changes that affect similarity (flip, colour, quarter turn) are drawn once
per group, the others (shift, zoom, rotation, crop, blur, cutout, mixing) once per
image. For views of unlabelled images, which are to differ, each image is a group of its
own. Switching one off leaves the draws of the others unchanged.
"""

from typing import Any, NamedTuple

import numpy as np

from deeprank_jax.errors import needs_extra

with needs_extra("train"):
    import cv2

# Smallest part that is mixed in, relative to the largest.
_LEAST_PATCH = 0.1
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def augment_triplets(
    triplets: np.ndarray,
    rng: np.random.Generator,
    *,
    shift_pixels: int = 0,
    flip: bool = False,
    color_jitter: float = 0.0,
    zoom: float = 0.0,
    rotate_degrees: float = 0.0,
    quarter_turns: float = 0.0,
    swap_colors: float = 0.0,
    grayscale: float = 0.0,
    crop_area: float = 1.0,
    cutout: float = 0.0,
    mixing: float = 0.0,
    blur: float = 0.0,
    num_members: int | None = None,
) -> np.ndarray:
    """Augments triplets at random.

    Args:
      triplets: `[B, 3, H, W, 3]` uint8, RGB; anchor, positive and negative on axis 1.
      rng: Generator; the number of draws does not depend on the options.
      shift_pixels: Largest shift of an image along both axes; edge pixels are repeated.
      flip: True to mirror half of the triplets left to right.
      color_jitter: Strength in [0, 1]; brightness, contrast and saturation of a triplet
        are each multiplied by a factor in `[1 - color_jitter, 1 + color_jitter]`.
      zoom: Strength of the scaling of an image about its centre, by a factor between
        `1 / (1 + zoom)` and `1 + zoom`; edge pixels are repeated.
      rotate_degrees: Largest rotation of an image in both directions.
      quarter_turns: Share of the groups that are turned, by 90, 180 or 270 degrees.
      swap_colors: Share of the groups whose colour channels change places.
      grayscale: Share of the groups that lose their colours.
      crop_area: Least share of an image's area that a random crop keeps, in (0, 1]; the
        crop, of an aspect ratio from 3/4 to 4/3, is resized to the whole; 1 for none.
      cutout: Side of a square of grey that hides a part of each image, as a share of
        the image's sides; its centre is drawn anywhere in the image.
      mixing: Share of the members of a group that show 5 to 50 % of another one.
      blur: Largest standard deviation of an image's Gaussian blur, in pixels.
      num_members: Number of the first images of a group that may be mixed: the anchor
        and its positives; None for all.

    Returns:
      `[B, 3, H, W, 3]` uint8, in new memory.
    """
    draws = _draw(rng, *triplets.shape[:2])
    augmented = np.array(triplets)
    _change_groups(augmented, draws, quarter_turns, swap_colors, grayscale)
    _change_colors(augmented, color_jitter * draws.jitters)
    if flip:
        augmented[draws.flips] = augmented[draws.flips][..., ::-1, :]
    if shift_pixels:
        offsets = (draws.positions * (2 * shift_pixels + 1)).astype(np.int64)
        augmented = _shift(augmented, offsets, shift_pixels)
    if zoom or rotate_degrees:
        _zoom_and_rotate(augmented, draws.turns, zoom, rotate_degrees)
    _change_parts(augmented, draws, crop_area, blur, cutout)
    if mixing:
        _mix(augmented[:, :num_members], draws, mixing)
    return augmented


def augment_views(
    views: np.ndarray, rng: np.random.Generator, **options: Any
) -> np.ndarray:
    """Augments each image on its own, flip and colours, too.

    Args:
      views: `[B, V, H, W, 3]` uint8, RGB images, `V` of the same for unlabelled images.
      rng: Generator; the number of draws does not depend on the options.
      **options: Options of `augment_triplets`; with `mixing` an image stays as it is,
        since it has no other to mix with.

    Returns:
      `[B, V, H, W, 3]` uint8, in new memory.
    """
    images = views.reshape(-1, 1, *views.shape[2:])
    return augment_triplets(images, rng, **options).reshape(views.shape)


class _Draws(NamedTuple):
    """Random numbers of `B` groups of `n` images, whatever the options are.

    Attributes:
      flips: `[B]` bool, True for a mirrored group.
      jitters: `[B, 3]` in [-1, 1), changes of brightness, contrast and saturation.
      positions: `[B, n, 2]` in [0, 1), shifts.
      turns: `[B, n, 2]` in [-1, 1), zoom and rotation.
      turned: `[B]` in [0, 1), below the share of groups that are turned.
      recolored: `[B]` in [0, 1), below the share of those whose channels change places.
      quarters: `[B]` 1 to 3, quarter turns.
      orders: `[B, 3]` ints, orders of the channels.
      grey: `[B]` in [0, 1), below the share of groups without colours.
      crops: `[B, n, 4]` in [0, 1), area, aspect ratio and place of a crop.
      holes: `[B, n, 2]` in [0, 1), centre of the hidden square.
      mixed: `[B, n]` in [0, 1), below the share of members that are mixed.
      partners: `[B, n]` in [0, 1), place of the other among the members.
      patches: `[B, n, 4]` in [0, 1), area, aspect ratio and place of its part.
      blurs: `[B, n]` in [0, 1), strength of the blur.
    """

    flips: np.ndarray
    jitters: np.ndarray
    positions: np.ndarray
    turns: np.ndarray
    turned: np.ndarray
    recolored: np.ndarray
    quarters: np.ndarray
    orders: np.ndarray
    grey: np.ndarray
    crops: np.ndarray
    holes: np.ndarray
    mixed: np.ndarray
    partners: np.ndarray
    patches: np.ndarray
    blurs: np.ndarray


def _draw(rng: np.random.Generator, num_groups: int, num_images: int) -> _Draws:
    return _Draws(
        flips=rng.random(num_groups) < 0.5,
        jitters=rng.uniform(-1.0, 1.0, (num_groups, 3)),
        positions=rng.random((num_groups, num_images, 2)),
        turns=rng.uniform(-1.0, 1.0, (num_groups, num_images, 2)),
        turned=rng.random(num_groups),
        recolored=rng.random(num_groups),
        quarters=rng.integers(1, 4, num_groups),
        orders=rng.permuted(np.tile(np.arange(3), (num_groups, 1)), axis=1),
        # Later options come last, so that the draws of the others stay the same.
        grey=rng.random(num_groups),
        crops=rng.random((num_groups, num_images, 4)),
        holes=rng.random((num_groups, num_images, 2)),
        mixed=rng.random((num_groups, num_images)),
        partners=rng.random((num_groups, num_images)),
        patches=rng.random((num_groups, num_images, 4)),
        blurs=rng.random((num_groups, num_images)),
    )


def _change_groups(
    groups: np.ndarray,
    draws: _Draws,
    quarter_turns: float,
    swap_colors: float,
    grayscale: float,
) -> None:
    """Turns and recolours some of the groups `[B, n, H, W, 3]`, in place."""
    for i in np.flatnonzero(draws.turned < quarter_turns):
        groups[i] = np.rot90(groups[i], draws.quarters[i], axes=(1, 2))
    for i in np.flatnonzero(draws.recolored < swap_colors):
        groups[i] = groups[i][..., draws.orders[i]]
    for i in np.flatnonzero(draws.grey < grayscale):
        groups[i] = (groups[i] @ _GREY)[..., None].round()


def _change_colors(groups: np.ndarray, changes: np.ndarray) -> None:
    """Changes the colours of groups `[B, n, H, W, 3]` by `[B, 3]`, in place."""
    if not changes.any():
        return
    for images, of_group in zip(groups, 1 + changes, strict=True):
        for image in images:
            image[...] = _jitter(image, *of_group)


def _zoom_and_rotate(
    groups: np.ndarray, turns: np.ndarray, zoom: float, degrees: float
) -> None:
    """Changes images `[B, n, H, W, 3]` by `[B, n, 2]` in [-1, 1), in place."""
    for i, j in np.ndindex(*groups.shape[:2]):
        scale, turn = (1 + zoom) ** turns[i, j, 0], degrees * turns[i, j, 1]
        _transform(groups[i, j], scale, turn)


def _change_parts(
    groups: np.ndarray, draws: _Draws, crop_area: float, blur: float, cutout: float
) -> None:
    """Crops and blurs images `[B, n, H, W, 3]` and hides a part of each, in place."""
    if crop_area == 1 and not blur and not cutout:
        return
    for i, j in np.ndindex(*groups.shape[:2]):
        if crop_area < 1:
            _crop(groups[i, j], crop_area, *draws.crops[i, j])
        if blur:
            _blur(groups[i, j], blur * draws.blurs[i, j])
        if cutout:
            _hide(groups[i, j], cutout, *draws.holes[i, j])


def _jitter(
    image: np.ndarray, brightness: float, contrast: float, saturation: float
) -> np.ndarray:
    """Changes saturation, then contrast about the mean grey, then brightness."""
    # Together they are one affine map of a pixel's colour.
    matrix = saturation * np.eye(3) + (1 - saturation) * _GREY
    mean = float(np.dot(_GREY, cv2.mean(image)[:3]))
    offset = np.full((3, 1), brightness * (1 - contrast) * mean)
    affine = np.hstack([brightness * contrast * matrix, offset])
    return cv2.transform(image, affine)


def _shift(triplets: np.ndarray, offsets: np.ndarray, most: int) -> np.ndarray:
    """Crops windows at `offsets` in `[0, 2 * most]` from padded images."""
    height, width = triplets.shape[2:4]
    edges = ((0, 0), (0, 0), (most, most), (most, most), (0, 0))
    padded = np.pad(triplets, edges, mode="edge")
    shifted = np.empty_like(triplets)
    for (i, j), _ in np.ndenumerate(offsets[..., 0]):
        y, x = offsets[i, j]
        shifted[i, j] = padded[i, j, y : y + height, x : x + width]
    return shifted


def _transform(image: np.ndarray, scale: float, degrees: float) -> None:
    """Scales and rotates an image about its centre, in place."""
    height, width = image.shape[:2]
    centre = ((width - 1) / 2, (height - 1) / 2)
    image[...] = cv2.warpAffine(
        image,
        cv2.getRotationMatrix2D(centre, degrees, scale),
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _crop(
    image: np.ndarray,
    least_area: float,
    area: float,
    aspect: float,
    top: float,
    left: float,
) -> None:
    """Resizes a part of an image to the whole, in place.

    Args:
      image: `[H, W, 3]` uint8.
      least_area: Least share of the area.
      area: Place of the area between the least and the whole, in [0, 1).
      aspect: Place of the aspect ratio between 3/4 and 4/3, in [0, 1).
      top: Place of the part along the height, in [0, 1).
      left: Place of the part along the width, in [0, 1).

    References:
      Szegedy et al., Going Deeper with Convolutions, 2015,
      https://arxiv.org/abs/1409.4842.
    """
    height, width = image.shape[:2]
    share = least_area + (1 - least_area) * area
    rows, columns = _rectangle(height, width, share, aspect, top, left)
    part = image[rows, columns]
    image[...] = cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR)


def _blur(image: np.ndarray, deviation: float) -> None:
    """Blurs an image, in place.

    Args:
      image: `[H, W, 3]` uint8.
      deviation: Standard deviation of the Gaussian, in pixels; at 0 nothing changes.

    References:
      Chen et al., A Simple Framework for Contrastive Learning of Visual
      Representations, 2020, https://arxiv.org/abs/2002.05709, appendix A, which blurs
      half of the images of 224 pixels by .1 to 2.
    """
    if deviation > 0:
        edge = cv2.BORDER_REPLICATE
        image[...] = cv2.GaussianBlur(image, (0, 0), deviation, borderType=edge)


def _rectangle(
    height: int, width: int, share: float, aspect: float, top: float, left: float
) -> tuple[slice, slice]:
    """Returns rows and columns of a part with a share of an image's area.

    Args:
      height: Height of the image, in pixels.
      width: Width of the image, in pixels.
      share: Share of its area, in (0, 1].
      aspect: Place of the aspect ratio between 3/4 and 4/3, in [0, 1).
      top: Place of the part along the height, in [0, 1).
      left: Place of the part along the width, in [0, 1).
    """
    # Within the image, so that no more is cut off.
    ratio = min(max((4 / 3) ** (2 * aspect - 1), share), 1 / share)
    rows = min(height, max(1, round(height * (share / ratio) ** 0.5)))
    columns = min(width, max(1, round(width * (share * ratio) ** 0.5)))
    y, x = int(top * (height - rows + 1)), int(left * (width - columns + 1))
    return slice(y, y + rows), slice(x, x + columns)


def _mix(members: np.ndarray, draws: _Draws, share: float) -> None:
    """Gives some members of groups a part of another one of their group, in place.

    Args:
      members: `[B, n, H, W, 3]` uint8.
      draws: Random numbers of the groups.
      share: Share of the members that are mixed.

    References:
      Yun et al., CutMix, 2019, https://arxiv.org/abs/1905.04899; within a group, so
      that a mixture is of the anchor's class if the positives are.
    """
    originals = members.copy()
    num_members, height, width = members.shape[1:4]
    for i, j in np.argwhere(draws.mixed[:, :num_members] < share):
        # Any member but this one; of one alone, the same.
        step = 1 + int(draws.partners[i, j] * (num_members - 1))
        area, *place = draws.patches[i, j]
        part = _rectangle(height, width, max(area, _LEAST_PATCH) / 2, *place)
        members[i, j][part] = originals[i, (j + step) % num_members][part]


def _hide(image: np.ndarray, share: float, y: float, x: float) -> None:
    """Fills a square with grey, in place.

    Args:
      image: `[H, W, 3]` uint8.
      share: Side of the square, as a share of the image's sides.
      y: Centre of the square along the height, in [0, 1).
      x: Centre of the square along the width, in [0, 1).

    References:
      DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with
      Cutout, 2017, https://arxiv.org/abs/1708.04552.
    """
    height, width = image.shape[:2]
    rows, columns = max(1, round(share * height)), max(1, round(share * width))
    top, left = int(y * height) - rows // 2, int(x * width) - columns // 2
    image[max(top, 0) : top + rows, max(left, 0) : left + columns] = 128
