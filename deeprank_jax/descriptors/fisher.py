"""Fisher vectors of SIFT descriptors.

A mixture of Gaussians models the patches of training images. An image is described by
the gradients of its likelihood by the means and deviations.
"""

import dataclasses
import warnings

import numpy as np
import threadpoolctl

from deeprank_jax.descriptors import dense_sift, local_features
from deeprank_jax.descriptors.base import Progress
from deeprank_jax.descriptors.images import check_images, check_size
from deeprank_jax.errors import needs_extra

_NAME = "fisher"
_NUM_FEATURES = 100_000
_EPOCHS = 20
# Per dimension of a Gaussian; the total variance of descriptors is about 0.5.
_LEAST_VARIANCE = 1e-5
# Ours: weight of a position relative to a descriptor, with image width 1.
_POSITION = np.float32(1.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of `K` Gaussians in `D` dimensions with diagonal covariances.

    Attributes:
      weights: `[K]` float32, weights of sum 1.
      means: `[K, D]` float32, centres of the Gaussians.
      deviations: `[K, D]` float32, standard deviations.
    """

    weights: np.ndarray
    means: np.ndarray
    deviations: np.ndarray

    def posteriors(self, x: np.ndarray) -> np.ndarray:
        """Returns each Gaussian's posterior, `[P, K]`, for the rows of `x [P, D]`."""
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

        The gradients by the means come first, then those by the deviations, each
        scaled as if every row belonged to one Gaussian alone.

        Args:
          x: `[P, D]` float32, features; at least one row.
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
    """Improved Fisher vectors with a fitted mixture.

    Attributes:
      mean: `[128]` float32, mean of the SIFT descriptors.
      axes: `[D, 128]` float32, their principal axes.
      mixture: Mixture in `D + 2` dimensions; the last two are the patch's position.
    """

    mean: np.ndarray
    axes: np.ndarray
    mixture: Mixture

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the improved Fisher vector of each image.

        Args:
          images: `[N, H, W, 3]` uint8, images of at least 16 x 16 pixels; `N` may be 0.

        Returns:
          `[N, 2 * K * (D + 2)]` float32: the signed root of each gradient, then rows
          of unit length. An image without edges is 0, at distance 1 from all others.

        Raises:
          DataError: The images are too small.
          ValueError: The images have another shape or type.
        """
        check_images(images)
        check_size(images, dense_sift.SMALLEST, _NAME)
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


@dataclasses.dataclass(frozen=True)
class FisherLearner:
    """Fisher vectors of SIFT descriptors and their positions.

    Attributes:
      dim: Dimension `D` that SIFT descriptors are reduced to.
      num_gaussians: Number of Gaussians `K`.

    References:
      Perronnin, Sanchez and Mensink, Improving the Fisher Kernel for Large-Scale Image
      Classification, 2010, https://doi.org/10.1007/978-3-642-15561-1_11.
      Sanchez, Perronnin and de Campos, Modeling the Spatial Layout of Images Beyond
      Spatial Pyramids, 2012, https://doi.org/10.1016/j.patrec.2012.07.019, appends the
      position.
    """

    dim: int = 32
    num_gaussians: int = 128
    title = "Fisher vectors of SIFT"
    version = 2
    is_learned = True

    def __post_init__(self):
        """Checks the options."""
        if not 1 <= self.dim <= dense_sift.DIM:
            raise ValueError(f"dim must be in 1 to {dense_sift.DIM}, got {self.dim}.")

    def fit(
        self,
        images: np.ndarray,
        *,
        seed: int = 0,
        workers: int = 1,
        progress: Progress = iter,
    ) -> Fisher:
        """Fits the principal axes and the mixture to training images.

        Args:
          images: `[M, H, W, 3]` uint8, training images of at least 16 x 16 pixels.
          seed: Seed of the mixture.
          workers: Number of threads; the result does not depend on it.
          progress: Wrapper of the images in a progress bar.

        Raises:
          DataError: The images have too few distinct patches, or are too small.
          ValueError: The images have another shape or type.
        """
        check_images(images)
        check_size(images, dense_sift.SMALLEST, _NAME)
        patches = local_features.draw_features(
            _placed_patches,
            images,
            _NUM_FEATURES,
            seed=seed,
            workers=workers,
            progress=progress,
        )
        needed = max(self.num_gaussians, self.dim + 1)
        option = "max(num_gaussians, dim + 1)"
        local_features.check_enough(patches, needed, _NAME, option)
        mean, axes = _principal_axes(patches[:, : dense_sift.DIM], self.dim)
        features = _reduce(patches, mean, axes)
        return Fisher(mean, axes, _fit_mixture(features, self.num_gaussians, seed))


def _placed_patches(image: np.ndarray) -> np.ndarray:
    """Returns `[P, 128 + 2]`: descriptors and positions of patches with edges."""
    patches = dense_sift.dense_sift(image)
    positions = _POSITION * dense_sift.positions(*image.shape[:2])
    return np.concatenate([patches, positions], axis=1)[patches.any(axis=1)]


def _reduce(patches: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Returns `[P, D + 2]`: the reduced descriptors and the positions."""
    descriptors, positions = np.split(patches, [dense_sift.DIM], axis=1)
    return np.concatenate([(descriptors - mean) @ axes.T, positions], axis=1)


def _principal_axes(x: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean `[C]` and the first `dim` principal axes `[dim, C]` of rows."""
    # Slow to import, and few runs learn a descriptor.
    with needs_extra("train"):
        from sklearn import decomposition

    with threadpoolctl.threadpool_limits(1):
        pca = decomposition.PCA(dim, svd_solver="full").fit(x)
    return pca.mean_.astype(np.float32), pca.components_.astype(np.float32)


def _fit_mixture(x: np.ndarray, num: int, seed: int) -> Mixture:
    """Fits `num` Gaussians to rows by 20 epochs of expectation maximisation."""
    with needs_extra("train"):
        from sklearn import exceptions, mixture

    with threadpoolctl.threadpool_limits(1), warnings.catch_warnings():
        # More epochs change the likelihood, but do not improve retrieval.
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
        gmm = mixture.GaussianMixture(
            num,
            covariance_type="diag",
            reg_covar=_LEAST_VARIANCE,
            max_iter=_EPOCHS,
            init_params="k-means++",
            random_state=seed,
        ).fit(x)
    return Mixture(
        gmm.weights_.astype(np.float32),
        gmm.means_.astype(np.float32),
        np.sqrt(gmm.covariances_).astype(np.float32),
    )
