r"""Tiles of large images, e.g. of slides in digital pathology: near ones are similar.

No labels are needed. The images in a folder are cut into tiles; of each image the left
part trains, and two parts to its right, a tile apart, validate and test. Tiles whose
centres are within `config.relevance.radius` pixels are similar, those beyond
`far_radius` and of other images are not. `relevant_retrieval/recall@1` is the share of
tiles whose nearest neighbour is a tile next to it.

Expected, on five pictures that scikit-image installs (docs/tiles.md), from random
weights: test Recall@1 by place .231 (pixels .139, untrained .137, chance .011); 5
minutes beside other work on two CPU cores.

Set tile and radii together, e.g. `--config.data.source.tile=256
--config.relevance.radius=384 --config.relevance.far_radius=768`. The tile is resized to
`config.data.image_size`.

  deeprank train --config=tiles \
      --config.data.dir=DIR --workdir=runs/tiles
"""

import ml_collections

from deeprank_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = base.get_config()
    config.data.source = dict(
        name="tiles",
        tile=32,
        stride=16,
        test_share=0.3,
        validation_share=0.2,
        min_contrast=2.0,
    )
    config.data.image_size = 32
    # Colours tell places apart, so they stay as they are.
    config.data.augment.update(shift_pixels=2, quarter_turns=0.75, color_jitter=0.0)
    # Of validation and test, whose tiles lie side by side, the eight around a tile; in
    # training, at half the stride, also those between, which share pixels with it.
    config.relevance = dict(name="place", radius=48.0, far_radius=96.0)
    config.triplets.category_level = 0  # The image: other images have no positives.
    config.num_steps = 150
    config.batch_size = 32
    config.sampler.positives_per_anchor = 3
    config.sampler.negatives_per_anchor = 0
    config.sampler.min_positive_relevance = 0.5
    config.loss = dict(name="multi_similarity")
    config.model.embedding_dim = 128
    config.schedule.warmup_steps = 50
    config.eval_every = 50
    config.evaluation.best_metric = "relevant_retrieval/recall@1"
    config.evaluation.evaluators = dict(
        relevant_retrieval=dict(ks=(1, 5, 10), min_relevance=1.0),
        retrieval=dict(ks=(1, 5, 10)),
        triplets=dict(num=20_000, k=30, out_of_class=0.2),
    )
    return config
