"""How do an image's patches differ from those of all images? Fisher vectors of SIFT.

A mixture of Gaussians says how patches are usually spread; an image is described by
how it would have the means and variances moved.
"""

from collections.abc import Callable, Iterable
import dataclasses
import warnings

import numpy as np
import threadpoolctl

from deeprank_jax.descriptors import dense_sift, local_features
from deeprank_jax.descriptors.images import check_images

_NAME = "fisher"
_NUM_FEATURES = 100_000
_PASSES = 20
# Of one dimension of a Gaussian; descriptors have a variance of some 0.5 in all.
_LEAST_VARIANCE = 1e-5
# Ours: how many lengths of a descriptor the image's width is worth.
_POSITION = np.float32(1.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of `K` Gaussians in `D` dimensions, none of which depend on another.

    Attributes:
      weights: `[K]` float32, shares of the whole.
      means: `[K, D]` float32.
      deviations: `[K, D]` float32, standard deviations.
    """

    weights: np.ndarray
    means: np.ndarray
    deviations: np.ndarray

    def posteriors(self, x: np.ndarray) -> np.ndarray:
        """Returns `[P, K]`, how likely each row of `x [P, D]` is of each Gaussian."""
        precisions = self.deviations**-2
        constant = (
            np.log(self.weights)
            - np.log(self.deviations).sum(axis=1)
            - 0.5 * (self.means**2 * precisions).sum(axis=1)
        )
        logs = constant + x @ (self.means * precisions).T - 0.5 * x**2 @ precisions.T
        shares = np.exp(logs - logs.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)

    def fisher_vector(self, x: np.ndarray) -> np.ndarray:
        """Returns `[2 * K * D]`, the normalised gradients of the mean log-likelihood.

        First those by the means, then those by the deviations, each times its own
        standard deviation, as if every row were wholly of one Gaussian.

        Args:
          x: `[P, D]` float32, at least one row.
        """
        shares = self.posteriors(x)
        # Moments about the means, summed over rows.
        mass = shares.sum(axis=0)[:, None]
        first = shares.T @ x - mass * self.means
        second = shares.T @ x**2 - 2.0 * self.means * first - mass * self.means**2
        roots = np.sqrt(self.weights)[:, None] * len(x)
        by_mean = first / self.deviations / roots
        by_deviation = (second / self.deviations**2 - mass) / (roots * np.sqrt(2.0))
        return np.concatenate([by_mean.ravel(), by_deviation.ravel()])


@dataclasses.dataclass(frozen=True, eq=False)
class Fisher:
    """Describes images by Fisher vectors of their SIFT descriptors.

    Attributes:
      mean: `[128]` float32, of the descriptors.
      axes: `[D, 128]` float32, their principal axes.
      mixture: in `D + 2` dimensions, the last two are where a patch lies.
    """

    mean: np.ndarray
    axes: np.ndarray
    mixture: Mixture

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the improved Fisher vector of each image.

        Args:
          images: `[N, H, W, 3]` uint8, at least 16 x 16 pixels, `N` may be 0.

        Returns:
          `[N, 2 * K * (D + 2)]` float32: the signed root of each gradient, then rows
          of unit length. An image without any edge is 0, at distance 1 of all others.

        Raises:
          ValueError: the images have another shape or type, or are too small.
        """
        check_images(images)
        dense_sift.check_size(images, _NAME)
        vectors = np.zeros((len(images), 2 * self.mixture.means.size), np.float32)
        with threadpoolctl.threadpool_limits(1):
            for image, out in zip(images, vectors, strict=True):
                patches = _placed_patches(image)
                if len(patches):
                    features = _reduce(patches, self.mean, self.axes)
                    gradients = self.mixture.fisher_vector(features)
                    roots = np.sign(gradients) * np.sqrt(np.abs(gradients))
                    out[:] = roots / max(np.linalg.norm(roots), 1e-12)
        return vectors


def fit_fisher(
    images: np.ndarray,
    *,
    seed: int = 0,
    dim: int = 32,
    num_gaussians: int = 128,
    workers: int = 1,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Fisher:
    """Learns how SIFT descriptors and their places are usually spread.

    Args:
      images: `[M, H, W, 3]` uint8, for training; at least 16 x 16 pixels.
      seed: decides the mixture, whatever the number of threads.
      dim: `D`, to which the 128 numbers of a descriptor are reduced.
      num_gaussians: `K`.
      workers: threads that share the images.
      progress: wraps the images that are looked at, e.g. in a progress bar.

    Raises:
      ValueError: the images have another shape or type, are too small, show too few
        distinct patches, or `dim` is not in 1 to 128.

    References:
      Perronnin, Sanchez and Mensink, Improving the Fisher Kernel for Large-Scale Image
      Classification, 2010, https://doi.org/10.1007/978-3-642-15561-1_11.
      Sanchez, Perronnin and de Campos, Modeling the Spatial Layout of Images Beyond
      Spatial Pyramids, 2012, https://doi.org/10.1016/j.patrec.2012.07.019, appends the
      place.
    """
    check_images(images)
    dense_sift.check_size(images, _NAME)
    if not 1 <= dim <= dense_sift.DIM:
        raise ValueError(f"dim must be in 1 to {dense_sift.DIM}, got {dim}.")
    patches = local_features.draw_features(
        _placed_patches,
        images,
        _NUM_FEATURES,
        seed=seed,
        workers=workers,
        progress=progress,
    )
    needed = max(num_gaussians, dim + 1)
    local_features.check_enough(patches, needed, _NAME, "max(num_gaussians, dim + 1)")
    mean, axes = _principal_axes(patches[:, : dense_sift.DIM], dim)
    features = _reduce(patches, mean, axes)
    return Fisher(mean, axes, _fit_mixture(features, num_gaussians, seed))


def _placed_patches(image: np.ndarray) -> np.ndarray:
    """Returns `[P, 128 + 2]`: descriptors of patches with edges, and places."""
    patches = dense_sift.dense_sift(image)
    places = _POSITION * dense_sift.positions(*image.shape[:2])
    return np.concatenate([patches, places], axis=1)[patches.any(axis=1)]


def _reduce(patches: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Returns `[P, D + 2]`: the descriptors along their axes, and the places."""
    descriptors, places = np.split(patches, [dense_sift.DIM], axis=1)
    return np.concatenate([(descriptors - mean) @ axes.T, places], axis=1)


def _principal_axes(x: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean `[C]` and the first `dim` principal axes `[dim, C]` of rows."""
    # Slow to import, and most runs learn no descriptor.
    from sklearn import decomposition

    with threadpoolctl.threadpool_limits(1):
        pca = decomposition.PCA(dim, svd_solver="full").fit(x)
    return pca.mean_.astype(np.float32), pca.components_.astype(np.float32)


def _fit_mixture(x: np.ndarray, num: int, seed: int) -> Mixture:
    """Fits `num` Gaussians to rows by expectation maximisation, for 20 passes."""
    from sklearn import exceptions, mixture

    with threadpoolctl.threadpool_limits(1), warnings.catch_warnings():
        # Twenty passes come close; hundreds describe images no better.
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
        gmm = mixture.GaussianMixture(
            num,
            covariance_type="diag",
            reg_covar=_LEAST_VARIANCE,
            max_iter=_PASSES,
            init_params="k-means++",
            random_state=seed,
        ).fit(x)
    return Mixture(
        gmm.weights_.astype(np.float32),
        gmm.means_.astype(np.float32),
        np.sqrt(gmm.covariances_).astype(np.float32),
    )
