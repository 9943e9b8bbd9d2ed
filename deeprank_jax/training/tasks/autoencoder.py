"""Learning without labels: an embedding from which a decoder restores the image."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math

from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from deeprank_jax import losses
from deeprank_jax.data import pixel_noise
from deeprank_jax.data.reader import ImageReader
from deeprank_jax.data.records import Records
from deeprank_jax.distributed import devices, processes
from deeprank_jax.errors import ConfigError
from deeprank_jax.losses.reconstruction import side_of, target_images
from deeprank_jax.models import DecoderSizes
from deeprank_jax.models.layers import check_counts
from deeprank_jax.progress import Bar
from deeprank_jax.relevance import Relevance
from deeprank_jax.sampling.stream import Sampler
from deeprank_jax.sampling.view_sampler import ViewSampler
from deeprank_jax.training import network
from deeprank_jax.training.step import Batch, Metrics, Objective

# Least mean squared error that a ratio is computed from: 100 dB.
_LEAST_ERROR = 1e-10


class Autoencoder:
    """Single images without labels: a decoder restores each from its embedding.

    The network sees the augmented image with Gaussian noise, and the loss the same
    image without it, at the size of the reconstruction. Labels, if there are any, serve
    the evaluation alone.

    References:
      Vincent et al., Stacked Denoising Autoencoders: Learning Useful Representations in
      a Deep Network with a Local Denoising Criterion, 2010,
      https://jmlr.org/papers/v11/vincent10a.html.
    """

    needs_records = False
    draws_triplets = False
    augments_alone = True
    # Split whose images `validate` reads.
    validation_split = "validation"
    METRICS: Mapping[str, str] = {
        "psnr": "Peak signal-to-noise ratio of reconstructed validation images in dB, "
        "-10 log10 of their mean squared error.",
        "psnr_noisy": "The same where the network sees the images with the noise of "
        "training.",
    }

    def __init__(
        self,
        *,
        noise: float = 0.1,
        widths: Sequence[int] = (128, 64, 32),
        reduce: int = 2,
        config: ml_collections.ConfigDict,
        relevance: Relevance,
    ):
        """Creates the task.

        Args:
          noise: Standard deviation of the noise, as a share of the pixel range; 0 for
            none.
          widths: Number of channels of each stage of the decoder, the smallest image
            first.
          reduce: Factor by which the reconstructed images are smaller.
          config: Whole configuration.
          relevance: Relevance of the run, which a loss of one's own may use.

        Raises:
          ConfigError: The loss does not exist or is of another task, or the network
            does not suit it.
          ValueError: An option is out of its range.
        """
        pixel_noise.check_sigma("noise", noise)
        if not widths:
            raise ValueError(
                "widths must hold the channels of at least one stage, as (128, 64, "
                f"32), got {tuple(widths)}."
            )
        check_counts(widths=widths, reduce=reduce)
        if reduce > config.data.image_size:
            raise ValueError(
                f"reduce must be at most config.data.image_size, "
                f"{config.data.image_size}, got {reduce}."
            )
        self._decoder = DecoderSizes(tuple(widths), reduce, float(noise))
        self._config = config
        self._num_validation = 0
        self._loss = losses.create_loss(
            config.loss.to_dict(),
            relevance_fn=relevance.pairwise,
            min_relevance_gap=config.triplets.min_relevance_gap,
            axis_name=devices.DATA_AXIS,
        )
        if self._loss.outputs != "images":
            raise ConfigError(
                f"config.loss.name={config.loss.name!r} takes {self._loss.outputs}, "
                'and config.task.name="autoencoder" gives images: set '
                "--config.loss.name=reconstruction."
            )
        _check_network(config)

    def prepare(self, records: Mapping[str, Records]) -> None:
        """Takes the number of validation images."""
        if "validation" in records:
            self._num_validation = len(records["validation"])

    def create_model(self) -> nnx.Module:
        """Returns the ranking network with a decoder."""
        return network.create_model(self._config, None, head=self._decoder)

    def create_sampler(
        self, records: Mapping[str, Records], *, shard: int, num_shards: int
    ) -> Sampler:
        """Returns a sampler of all training images, an epoch at a time."""
        return ViewSampler(
            len(records["train"]),
            num_views=1,
            seed=self._config.seed,
            shard=shard,
            num_shards=num_shards,
        )

    def objective(self) -> Objective:
        """Returns the loss of reconstructions with its metrics."""
        return ReconstructionObjective(self._loss)

    def validate(
        self,
        outputs_fn: Callable[[np.ndarray], np.ndarray],
        reader: ImageReader,
        *,
        check: Callable[[], None],
    ) -> dict[str, float]:
        """Returns how well validation images are restored, without and with noise.

        Args:
          outputs_fn: Function from uint8 images `[B, H, W, 3]` to reconstructions
            `[B, S * S * 3]`.
          reader: Images of the validation split.
          check: Function that is called for each batch, and may raise to end early.

        Returns:
          The metrics; none if no image can be read.
        """
        errors = measure_errors(
            outputs_fn,
            reader,
            self._num_validation,
            self._config.evaluation.batch_size,
            noise=self._decoder.noise,
            check=check,
        )
        if not len(errors):
            return {}
        means = np.maximum(errors.mean(axis=0), _LEAST_ERROR)
        clean, noisy = (-10.0 * math.log10(mean) for mean in means)
        return {"psnr": clean, "psnr_noisy": noisy}

    def reconstruct(
        self,
        outputs_fn: Callable[[np.ndarray], np.ndarray],
        reader: ImageReader,
        indices: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Returns rows of pictures for the report, by title.

        Args:
          outputs_fn: Function from uint8 images `[B, H, W, 3]` to reconstructions.
          reader: Images of a split.
          indices: `[n]` int, indices of records of it, at most
            `config.evaluation.batch_size`.
        """
        images, _ = reader.load(indices)
        noisy = pixel_noise.add_noise(images, self._decoder.noise, indices)
        size = self._config.evaluation.batch_size
        padding = ((0, size - len(images)), *((0, 0),) * 3)
        rows = {"image": images, "with noise": noisy}
        for title, pixels in (("restored", images), ("restored from noise", noisy)):
            outputs = np.asarray(outputs_fn(np.pad(pixels, padding)))[: len(images)]
            side = side_of(outputs.shape[-1])
            restored = np.clip(np.rint(255.0 * outputs), 0, 255).astype(np.uint8)
            rows[title] = restored.reshape(-1, side, side, 3)
        return rows

    def health(self) -> None:
        """Returns no monitor: a decoder that collapses shows in the loss."""
        return None

    def describe(self) -> dict[str, str]:
        """Returns the loss and the network's head."""
        dim = self._config.model.embedding_dim
        side = -(-self._config.data.image_size // self._decoder.reduce)
        widths = " and ".join(map(str, self._decoder.widths))
        return {
            "Loss": f"{self._loss.describe()}, {side} pixels, noise "
            f"{self._decoder.noise:g} of the pixel range",
            "Head": (f"{dim} dimensions" if dim else "without a linear map")
            + f", in training alone a decoder of {widths} channels",
        }


def _check_network(config: ml_collections.ConfigDict) -> None:
    """Checks that the network can be trained with noise, and alone.

    Raises:
      ConfigError: It cannot.
    """
    if config.model.ensemble:
        raise ConfigError(
            'config.model.ensemble is for config.task.name="ranking": set it to () for '
            '"autoencoder", which trains a single network.'
        )
    if config.optimizer.trunk_scale == 0.0:
        raise ConfigError(
            "config.optimizer.trunk_scale=0 freezes the trunk and all random draws of "
            'the network, and config.task.name="autoencoder" trains with noise: set '
            "it above 0."
        )


def measure_errors(
    outputs_fn: Callable[[np.ndarray], np.ndarray],
    reader: ImageReader,
    num_images: int,
    batch_size: int,
    *,
    noise: float,
    check: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Returns the mean squared error of each image that can be read.

    Each process measures its share of the images, and all get the whole result.

    Args:
      outputs_fn: Function from uint8 images `[B, H, W, 3]` to reconstructions
        `[B, S * S * 3]`.
      reader: Images of a split.
      num_images: Number of its records.
      batch_size: Images per batch.
      noise: Standard deviation of the noise, as a share of the pixel range.
      check: Function that is called for each batch, and may raise to end early.

    Returns:
      `[M, 2]` float64: without noise, and with it.
    """
    errors, readable = np.zeros((num_images, 2)), np.zeros(num_images, bool)
    start, stop = processes.own_share(num_images)
    bar = {"desc": "reconstruction", "unit": "batch", "leave": False}
    with processes.interrupted_together():
        batches = Bar(
            reader.batches(batch_size, start, stop),
            **bar,
            total=-(-(stop - start) // batch_size),
            shown=processes.is_first(),
        )
        for batch in batches:
            check()
            images, indices, mask = (batch[x] for x in ("images", "indices", "mask"))
            readable[indices[mask]] = True
            noisy = pixel_noise.add_noise(images, noise, indices)
            for column, pixels in enumerate((images, noisy)):
                outputs = np.asarray(outputs_fn(pixels), np.float64)
                targets = target_images(jnp.asarray(images), side_of(outputs.shape[-1]))
                gaps = outputs - np.asarray(targets).reshape(outputs.shape)
                errors[indices[mask], column] = np.mean(np.square(gaps), axis=1)[mask]
    errors, readable = map(processes.gather_shares, (errors, readable))
    return errors[readable]


@dataclasses.dataclass(frozen=True)
class ReconstructionObjective:
    """Objective of reconstructions, whose batch holds `images [B, 1, H, W, 3]`.

    Attributes:
      loss_fn: Loss of reconstructions `[B, 1, S * S * 3]` and the images.
    """

    loss_fn: losses.LossFn

    def __call__(
        self, outputs: jax.Array, batch: Batch, *, step: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """Returns the losses `[B]` of a batch, and the share of variance explained."""
        image_losses = self.loss_fn(outputs, batch, step=step, key=key)
        if len(outputs) < 2:  # A single image does not vary.
            return image_losses, {}
        targets = target_images(batch["images"], side_of(outputs.shape[-1]))
        targets = targets.reshape(outputs.shape)
        spread = jnp.mean(jnp.square(targets - targets.mean(axis=0, keepdims=True)))
        error = jnp.mean(jnp.square(jax.lax.stop_gradient(outputs) - targets))
        explained = 1.0 - error / jnp.maximum(spread, _LEAST_ERROR)
        return image_losses, {"explained_variance": explained}

    def remember(
        self, memory: Mapping[str, jax.Array], outputs: jax.Array, batch: Batch
    ) -> Mapping[str, jax.Array]:
        """Returns the memory of the loss after a batch."""
        return losses.update_memory(self.loss_fn, memory, outputs, batch)
