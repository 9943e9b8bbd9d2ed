"""What all experiments share; a config file changes what makes it another one."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration that the others start from."""
    config = ml_collections.ConfigDict()
    config.seed = 0  # Of all that is drawn.
    config.task = "ranking"  # Or "classification", the first of the two stages.
    config.num_steps = 1000  # Batches to train on.
    # Triplets, or images where classes are told, over all devices.
    config.batch_size = 64
    # In how many parts, one after the other, each device sees its share of a batch.
    config.accumulate_steps = 1
    # A run to start from: its workdir, or a step of its checkpoints.
    config.init_from = ""

    config.data = ml_collections.ConfigDict()
    config.data.name = "folder"  # "emoji", "folder", "manifest", or a TFDS dataset.
    config.data.dir = ""  # The folder, the manifest, or where TFDS keeps its datasets.
    config.data.levels = ()  # TFDS only: its label features, from coarse to fine.
    config.data.image_feature = "image"  # TFDS only.
    config.data.name_feature = ""  # TFDS only: what a person calls the finest label.
    config.data.columns = ()  # TFDS only: further label features, for "attributes".
    config.data.split_by = "dataset"  # TFDS only: or "class_hash" or "first_half".
    config.data.image_size = 64  # Height and width that the network sees.
    config.data.fit = "crop"  # Or "pad" or "stretch".
    config.data.max_pixels = 50_000_000  # Larger images are refused by their header.
    config.data.max_bad_share = 0.05  # The run stops if more cannot be read.
    config.data.cache_mib = 512  # Of decoded images, for each split.
    config.data.workers = 2  # Threads that decode.
    config.data.prefetch = 2  # Batches prepared ahead.
    config.data.augment = dict(
        shift_pixels=4,  # Drawn for each image.
        flip=True,  # Drawn once per triplet, as is the jitter.
        color_jitter=0.2,
        zoom=0.0,  # Drawn for each image, as is the rotation.
        rotate_degrees=0.0,
    )

    config.relevance = ml_collections.ConfigDict()
    # Or "hierarchy", "attributes", "embedding", "golden", "table" or one of your own.
    config.relevance.name = "same_class"
    config.relevance.levels = ()  # "hierarchy": a relevance per level.
    # "attributes": by the names of levels and further columns.
    config.relevance.weights = ml_collections.ConfigDict()
    # "embedding": .parquet, .npz or .npy, {split} standing for the split; "golden":
    # what deeprank_jax.cli.golden_feature writes; "table": .csv or .parquet of pairs.
    config.relevance.file = ""
    # "embedding": "exponential" (if empty), "linear" or "cosine".
    config.relevance.kernel = ""
    # "embedding", not cosine: the squared distance that counts; 0 for 1.
    config.relevance.scale = 0.0

    config.sampler = ml_collections.ConfigDict()
    config.sampler.name = "reservoir"  # Or "file", triplets drawn beforehand.
    config.sampler.file = ""  # "file" only: as deeprank_jax.cli.triplets writes it.
    config.sampler.mode = "importance"  # Or "uniform", the paper's baseline.
    # The attribute that is the paper's category; -1 is the class itself, None puts all
    # records into one.
    config.sampler.category_level = ml_collections.config_dict.placeholder(int)
    config.sampler.capacity = 4096  # Records in the buffer of a category.
    config.sampler.records_per_step = 256  # That pass by the buffers.
    config.sampler.positive_cap = 1.0  # T_p of equation (7).
    config.sampler.min_relevance_gap = 0.01  # T_r of equation (8).
    config.sampler.out_of_class = 0.2  # Share of negatives of other categories.

    config.model = ml_collections.ConfigDict()
    # By name, with its options; see docs/networks.md.
    config.model.trunk = dict(name="convnet", widths=(32, 64, 128, 256))
    config.model.embedding_dim = 64  # Numbers that an image becomes.
    # Low-resolution paths beside the trunk; () for none.
    config.model.paths = (
        dict(subsample=2, kernel=8, stride=4, width=32, pool=3, pool_stride=2),
    )
    config.model.dtype = "float32"  # Or "bfloat16", what the layers compute in.
    config.model.batch_norm = "synchronized"  # Over devices; or "frozen".
    config.model.remat = False  # True: less memory, more time for the gradient.
    # Pretrained weights: "package", those of an installed package (efficientnet_lite0
    # to 2), or the path of a file; its layout by name or .json, "" for the trunk's.
    config.model.weights = ""
    config.model.weights_layout = ""

    config.loss = ml_collections.ConfigDict()
    config.loss.margin = 0.2  # In squared distance; unit vectors lie at most 4 apart.
    # Or "sampled", as the paper, "distance_weighted" or "batch_hard".
    config.loss.negatives = "semi_hard"
    config.loss.soft_margin = False  # True: softplus in place of the hinge, no margin.
    config.loss.warmup_steps = 0  # "batch_hard" only: steps with semi-hard negatives.
    config.loss.symmetric = False  # True: each positive is an anchor, too.

    config.classification = ml_collections.ConfigDict()
    config.classification.level = -1  # Of the labels; -1 is the finest.
    config.classification.held_out = 0.1  # Of the training images, to be asked about.
    config.classification.label_smoothing = 0.1  # Of the cross entropy.

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.name = "adamw"  # Or "sgd".
    config.optimizer.learning_rate = 1e-3  # The highest of the schedule.
    config.optimizer.momentum = 0.9  # SGD only, as nesterov.
    config.optimizer.nesterov = True
    config.optimizer.b1 = 0.9  # AdamW only, as b2.
    config.optimizer.b2 = 0.999
    config.optimizer.l2_penalty = 0.0  # The paper's lambda: + lambda ||W||^2.
    config.optimizer.decoupled_weight_decay = 0.0  # AdamW's: - rate * decay * W.
    config.optimizer.clip_norm = 0.0  # 0 for no limit.
    config.optimizer.trunk_scale = 1.0  # Of its learning rate; 0 freezes the trunk.

    config.schedule = ml_collections.ConfigDict()
    config.schedule.name = "cosine"  # Or "linear" or "constant".
    config.schedule.warmup_steps = 50  # In which the rate rises from 0.

    config.log_every = 20  # Steps, as of the next two.
    config.eval_every = 250
    config.checkpoint_every = 250
    config.max_skipped = 20  # Steps in a row that are not finite before giving up.

    config.evaluation = ml_collections.ConfigDict()
    config.evaluation.batch_size = 256  # Images embedded at a time.
    config.evaluation.best_metric = "retrieval/recall@1"  # On validation.
    config.evaluation.retrieval = dict(ks=(1, 5, 10))  # Of recall and nDCG.
    # What sharing each level gains in nDCG; () takes config.relevance itself.
    config.evaluation.gains = ()
    # Images of all splits, up to which copies of training images are looked for in the
    # others; 0 for never.
    config.evaluation.max_compared = 50_000
    # How many of each split, and the K of score-at-top-K.
    config.evaluation.triplets = dict(num=20_000, k=30, out_of_class=0.2)
    # A file of triplets that people rated, {split} standing for the split; "" for none.
    config.evaluation.rated_triplets = ""
    return config
