"""OrthoHash: softmax over cosines to a fixed binary code per class."""

from deeprank_jax.losses.margin_softmax import CosFace


class OrthoHash(CosFace):
    """Cross entropy of scaled cosines to the codes of the classes, with a margin.

    The embedding is drawn to the code of its class, and no other term is needed: where
    the cosine is 1, its signs are the code. The codes are drawn from `config.seed` and
    are part of the network in training, `models.Coded`. It is used with
    `config.task.name="classification"`, whose network then has the paths and the
    embedding of a ranking network, and with `config.model.embedding_norm`.

    References:
      Hoe et al., One Loss for All: Deep Hashing with a Single Cosine Similarity based
      Learning Objective, 2021, https://arxiv.org/abs/2109.14449.
    """

    name, outputs = "OrthoHash", "code_cosines"

    def __init__(
        self,
        *,
        margin: float = 0.2,
        scale: float = 8.0,
        warmup_steps: int = 0,
        label_smoothing: float = 0.0,
    ):
        """Creates the loss.

        Args:
          margin: Margin, in [0, 2].
          scale: Factor of the cosines, above 0.
          warmup_steps: Steps in which the margin rises from 0.
          label_smoothing: Share of the target that is spread over all classes.

        Raises:
          ValueError: An option is out of range.
        """
        super().__init__(
            margin=margin,
            scale=scale,
            warmup_steps=warmup_steps,
            label_smoothing=label_smoothing,
        )
