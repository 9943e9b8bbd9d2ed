"""All keys with their defaults; the other configs change some of them."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Returns the configuration that all others start from."""
    config = ConfigDict()
    config.seed = 0  # Seed of all random draws.
    # Task, or dict(name="classification", level=-1, held_out=0.1): the first of the
    # paper's two stages, with config.loss.name="cross_entropy", "center", "normface",
    # "cosface", "arcface" or "proxy_anchor", or with "ortho_hash" for binary codes
    # (features="embedding" compares a ranking network's with the classes); or
    # dict(name="attributes", weights=dict(digit=1.0, size=0.5)): several attributes of
    # an image at once, by the names of levels and columns; or
    # dict(name="self_supervised"): learning without labels, with
    # config.loss.name="nt_xent" or "instance_discrimination"; or
    # dict(name="autoencoder", noise=0.1, widths=..., reduce=2): a decoder restores each
    # image from its embedding, with config.loss.name="reconstruction"; or
    # dict(name="pairs", file=...): pairs of images that are similar or not, with
    # config.loss.name="pair_contrastive".
    config.task = dict(name="ranking")
    config.num_steps = 1000  # Batches to train on.
    # Triplets or other groups per step, listed pairs, or images where classes are
    # learned, over all devices.
    config.batch_size = 64
    # Parts, one after the other, in which each device processes its share of a batch.
    config.accumulate_steps = 1
    # Run to start from: its workdir, or a step of its checkpoints.
    config.init_from = ""
    # Config of a stage to train before, e.g. "pretrain_emoji": its run is the folder
    # first_stage within that of this one, which starts from its network.
    config.first_stage = ""
    # Python files or modules that register kinds of your own; see docs/extending.md.
    config.plugins = ()
    config.data = _data()
    config.relevance = _relevance()
    config.triplets = _triplets()
    config.sampler = _sampler()
    config.model = _model()
    config.loss = _loss()
    config.optimizer = _optimizer()
    config.schedule = _schedule()
    config.log_every = 20  # Steps between two log entries.
    config.eval_every = 250  # Steps between two validations.
    # Validations without improvement after which training ends; 0 for never.
    config.patience = 0
    config.checkpoint_every = 250  # Steps between two checkpoints.
    config.max_skipped = 20  # Non-finite steps in a row before the run gives up.
    config.evaluation = _evaluation()
    return config


def _data() -> ConfigDict:
    data = ConfigDict()
    # Source of the records: dict(name="folder"), "manifest", "unlabelled", "digits",
    # "emoji", "photo_views", dict(name="tiles", tile=..., stride=...) of large images,
    # or dict(name="tfds", dataset=..., levels=...) with levels from coarse to fine.
    data.source = dict(name="folder")
    data.dir = ""  # The folder, the manifest, or the directory of TFDS datasets.
    data.image_size = 64  # Height and width of the network's input.
    data.fit = "crop"  # Fit into the square: "crop", "pad" or "stretch".
    data.max_pixels = 50_000_000  # Larger images are refused by their header.
    data.max_bad_share = 0.05  # Share of unreadable images at which the run stops.
    data.cache_mib = 512  # Memory for decoded images of each split.
    data.workers = 2  # Decoding threads.
    data.prefetch = 2  # Batches prepared ahead.
    # File of another model's embeddings of the training images, which the loss
    # "distillation" learns from; `deeprank embed` writes it.
    data.teacher = ""
    data.augment = dict(
        shift_pixels=4,  # Largest shift, drawn for each image.
        flip=True,  # Mirroring, drawn once per triplet.
        color_jitter=0.2,  # Largest change of colour, drawn once per triplet.
        zoom=0.0,  # Largest zoom, drawn for each image.
        rotate_degrees=0.0,  # Largest rotation, drawn for each image.
        quarter_turns=0.0,  # Share of the groups that are turned by 90 degrees or more.
        swap_colors=0.0,  # Share of the groups whose colour channels change places.
        grayscale=0.0,  # Share of the groups that lose their colours.
        crop_area=1.0,  # Least share of an image that a random crop keeps; 1 for none.
        cutout=0.0,  # Side of a grey square that hides a part, as a share of the image.
        # Share of an anchor and its positives that show a part of another of these.
        mixing=0.0,
        blur=0.0,  # Largest deviation of a Gaussian blur in pixels, for each image.
    )
    return data


def _relevance() -> ConfigDict:
    relevance = ConfigDict()
    # Graded similarity of two records: "same_class", dict(name="hierarchy",
    # levels=...), "attributes" (weights), "embedding" (file, kernel, scale), "golden"
    # (file), "table" (file), "place" of tiles (radius, far_radius), or one of your own.
    relevance.name = "same_class"
    return relevance


def _triplets() -> ConfigDict:
    triplets = ConfigDict()
    # Label level that is the paper's category: -1 is the class itself, None puts all
    # records into one category.
    triplets.category_level = placeholder(int)
    triplets.positive_cap = 1.0  # T_p of equation (7).
    triplets.min_relevance_gap = 0.01  # T_r of equation (8).
    return triplets


def _sampler() -> ConfigDict:
    # Or dict(name="file", file=...) with triplets from `deeprank triplets`.
    sampler = ConfigDict(dict(name="reservoir"))
    sampler.mode = "importance"  # Or "uniform", the paper's baseline.
    sampler.capacity = 4096  # Records in the buffer of a category.
    sampler.records_per_step = 256  # Records ingested into the buffers per step.
    sampler.out_of_class = 0.2  # Share of negatives from other categories.
    sampler.min_positive_relevance = 0.0  # Least relevance of a positive.
    # Positives and negatives of an anchor; 0 negatives for a loss on all pairs.
    sampler.positives_per_anchor = 1
    sampler.negatives_per_anchor = 1
    return sampler


def _model() -> ConfigDict:
    model = ConfigDict()
    # Trunk by name, with its options; see docs/networks.md.
    model.trunk = dict(name="convnet", widths=(32, 64, 128, 256))
    # Dimensions of an embedding; None for the features of the trunk themselves.
    model.embedding_dim = 64
    # True: BatchNorm of an embedding's numbers before it is scaled to length 1, so that
    # at the start of training each is above 0 for about half of the images; for the
    # binary codes of signs.
    model.embedding_norm = False
    # Low-resolution paths beside the trunk; () for none.
    model.paths = (
        dict(subsample=2, kernel=8, stride=4, width=32, pool=3, pool_stride=2),
    )
    # Further networks, whose embeddings come beside that of the first: dicts of trunk,
    # embedding_dim, paths and subsample; each learns by the loss on its own.
    model.ensemble = ()
    # Pixels by which an image is shifted four ways, for the mean of five embeddings.
    model.embed_shift = 0
    # True: an embedding is the mean over these and their mirror images.
    model.embed_flip = False
    # Power of the whitening that is fitted on training images when training ends, from
    # 0 (none) to 1 (all axes of the embeddings have the same second moment).
    model.whitening_power = 0.0
    # First numbers of an embedding that are kept, scaled to length 1; 0 for all. The
    # loss learns from all; `matryoshka` makes the first as good as they can be.
    model.embed_prefix = 0
    model.dtype = "float32"  # Type of the layers' computations, or "bfloat16".
    model.batch_norm = "synchronized"  # Statistics over all devices, or "frozen".
    model.remat = False  # True: less memory, more time for the gradient.
    # Pretrained weights: "package", those of an installed package (efficientnet_lite0
    # to 2), or the path of a file; its layout by name or .json, "" for the trunk's.
    model.weights = ""
    model.weights_layout = ""
    return model


def _loss() -> ConfigDict:
    # Or "triplet_soft_margin", which has no margin; or a loss on all pairs of a batch:
    # "contrastive", "multi_similarity", "supcon", "rank_n_contrast", "circle" or
    # "fast_ap", each with options of its own and `memory_size`; or "distillation"; or
    # "weighted_sum" of several, "matryoshka" of prefixes or "hashing" of binary codes.
    loss = ConfigDict(dict(name="triplet_hinge"))
    loss.margin = 0.2  # In squared distance; unit vectors lie at most 4 apart.
    loss.symmetric = False  # True: each positive is also an anchor.
    # Negatives from the batch: "semi_hard", "distance_weighted" or
    # dict(name="batch_hard", warmup_steps=0); "sampled" uses the sampler's, as the
    # paper.
    loss.miner = dict(name="semi_hard")
    return loss


def _optimizer() -> ConfigDict:
    optimizer = ConfigDict()
    optimizer.name = "adamw"  # Or "sgd".
    optimizer.learning_rate = 1e-3  # Highest of the schedule.
    optimizer.momentum = 0.9  # SGD only, as nesterov.
    optimizer.nesterov = True
    optimizer.b1 = 0.9  # AdamW only, as b2.
    optimizer.b2 = 0.999
    optimizer.l2_penalty = 0.0  # The paper's lambda: + lambda ||W||^2.
    optimizer.decoupled_weight_decay = 0.0  # AdamW's: - rate * decay * W.
    # Decay of the moving average of the weights, which then is evaluated and exported;
    # 0 for none.
    optimizer.ema_decay = 0.0
    optimizer.clip_norm = 0.0  # Largest norm of the gradient; 0 for no limit.
    optimizer.trunk_scale = 1.0  # Factor of the trunk's learning rate; 0 freezes it.
    return optimizer


def _schedule() -> ConfigDict:
    schedule = ConfigDict()
    schedule.name = "cosine"  # Or "linear" or "constant".
    # Steps in which the rate rises from 0; None for 50, or num_steps / 5 if less.
    schedule.warmup_steps = placeholder(int)
    return schedule


def _evaluation() -> ConfigDict:
    evaluation = ConfigDict()
    evaluation.batch_size = 256  # Images embedded at a time.
    evaluation.best_metric = "retrieval/recall@1"  # Selects a checkpoint on validation.
    # Evaluators by name, with their options; see docs/evaluation.md.
    evaluation.evaluators = dict(
        retrieval=dict(ks=(1, 5, 10)),
        triplets=dict(num=20_000, k=30, out_of_class=0.2),
    )
    # Gain of sharing each level, in nDCG; () takes config.relevance itself.
    evaluation.gains = ()
    # Images of all splits, up to which copies of training images are looked for in the
    # others; 0 for never.
    evaluation.max_compared = 50_000
    return evaluation
