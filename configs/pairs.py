r"""Your own images without classes, and a file of pairs that are similar or not.

The file, CSV or Parquet, has the columns `a,b,similar`: two images by their paths from
the folder, and 1 or 0. A pair that is not listed is neither similar nor different.
Network and training are those of `configs/folder.py`, with the contrastive loss of the
listed pairs alone.

A hash of its path puts an image into training, validation or test, and a pair counts
where both its images are in one of them; the log says how many are left out of
training, the report how many of the others. The checkpoint whose validation pairs have
the largest ROC AUC is kept, which may be the network before training.

  deeprank train --config=pairs --config.data.dir=DIR \
      --config.task.file=PAIRS.csv --workdir=runs/mine
"""

import ml_collections
from ml_collections import FieldReference

from deeprank_jax.configs import folder


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = folder.get_config()
    file = FieldReference("")
    config.task = dict(name="pairs", file=file)
    config.loss = dict(name="pair_contrastive")
    config.data.source = dict(name="unlabelled", test_share=0.2, validation_share=0.2)
    config.sampler.update(positives_per_anchor=1, negatives_per_anchor=0)
    evaluators = config.evaluation.evaluators.to_dict()
    # The file of training, unless another is given.
    evaluators["pairs"] = dict(file=file.identity())
    config.evaluation.evaluators = evaluators
    config.evaluation.best_metric = "pairs/roc_auc"
    return config
