"""The rows of the paper's table: what each is, and what the paper measured."""

from collections.abc import Mapping
import dataclasses

HAND_MADE, LEARNED, NETWORKS = "Hand-made", "Learned from hand-made", "Networks"
# The row that all others are compared with.
FIRST = "deep_ranking"
# What is measured, and what people call it; the first two are the paper's.
METRICS: Mapping[str, str] = {
    "triplets/precision": "Similarity precision",
    "triplets/score_at_30": "Score-at-30",
    "retrieval/recall@1": "Recall@1",
    "retrieval/map@r": "MAP@R",
    "retrieval/ndcg@10": "nDCG@10",
}

# Where people rated triplets of test, the first two are of these, as in the paper.
RATED_METRICS: Mapping[str, str] = {
    "rated/precision": "Similarity precision, rated",
    "rated/score_at_30": "Score-at-30, rated",
    **METRICS,
}


@dataclasses.dataclass(frozen=True)
class About:
    """What a row is.

    Attributes:
      name: what it is called.
      group: where it stands.
      text: how it is made.
      paper: similarity precision and score-at-30 as published; None if they were not.
    """

    name: str
    group: str
    text: str
    paper: tuple[float, float] | None = None


ROWS: Mapping[str, About] = {
    "pixels": About("Pixels", HAND_MADE, "16 x 16, centred"),
    "wavelet": About("Wavelet", HAND_MADE, "signs of the largest", (0.622, 2735)),
    "lab_histogram": About("Colour", HAND_MADE, "LAB histogram", (0.623, 2935)),
    "sift_words": About("SIFT words", HAND_MADE, "bag of words", (0.655, 2863)),
    "fisher": About("Fisher vectors", HAND_MADE, "of SIFT", (0.672, 3064)),
    "hog": About("HOG", HAND_MADE, "oriented gradients", (0.684, 3099)),
    "texton_pyramid": About(
        "Texton pyramid", HAND_MADE, "1,024 textons, max-pooled", (0.665, 3556)
    ),
    "golden": About(
        "Golden feature",
        LEARNED,
        "descriptors, weighted as ratings say",
        (0.803, 7165),
    ),
    "l1_hash_kpca": About(
        "L1HashKPCA", LEARNED, "golden feature, hashed", (0.762, 6356)
    ),
    "oasis": About("OASIS", LEARNED, "on L1HashKPCA", (0.792, 6813)),
    "softmax": About(
        "Softmax", NETWORKS, "its last layer but one, unit length", (0.828, 5772)
    ),
    "softmax_further": About(
        "Softmax, further", NETWORKS, "trained as long as those that rank"
    ),
    "softmax_logits": About("Softmax, logits", NETWORKS, "centred, unit length"),
    "softmax_classes": About(
        "Softmax, classes", NETWORKS, "probabilities of the training classes"
    ),
    "single_scale": About(
        "Single-scale ranking", NETWORKS, "the trunk alone", (0.846, 6245)
    ),
    "oasis_single_scale": About(
        "OASIS on single-scale", NETWORKS, "a similarity of it", (0.825, 6263)
    ),
    "single_scale_visual": About(
        "Single-scale & visual",
        NETWORKS,
        "beside L1HashKPCA, weighted by validation",
        (0.841, 6765),
    ),
    "deep_ranking": About(
        "Deep ranking", NETWORKS, "with a low-resolution path", (0.857, 7004)
    ),
}
DESCRIPTORS = tuple(name for name, row in ROWS.items() if row.group == HAND_MADE)
# The networks that the rows of networks are made of.
TRAINED = ("softmax", "softmax_further", "single_scale", "deep_ranking")
