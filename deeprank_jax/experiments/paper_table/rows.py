"""Rows of the paper's table, with the numbers that the paper published."""

from collections.abc import Mapping
import dataclasses

from deeprank_jax import descriptors

HAND_MADE, LEARNED, NETWORKS = "Hand-made", "Learned from hand-made", "Networks"
# The row that all others are compared with.
FIRST = "deep_ranking"
# Metrics and their titles; the first two are the paper's.
METRICS: Mapping[str, str] = {
    "triplets/precision": "Similarity precision",
    "triplets/score_at_30": "Score-at-30",
    "retrieval/recall@1": "Recall@1",
    "retrieval/map@r": "MAP@R",
    "retrieval/ndcg@10": "nDCG@10",
}

# Metrics with rated triplets of test: the first two are of these, as in the paper.
RATED_METRICS: Mapping[str, str] = {
    "rated/precision": "Similarity precision, rated",
    "rated/score_at_30": "Score-at-30, rated",
    **METRICS,
}


@dataclasses.dataclass(frozen=True)
class Description:
    """Description of a row.

    Attributes:
      name: Title of the row.
      group: Group of rows that it stands in.
      text: Method, in a few words.
      paper: Published similarity precision and score-at-30; None if there are none.
    """

    name: str
    group: str
    text: str
    paper: tuple[float, float] | None = None


# Descriptors of the paper's table, and pixels.
_PUBLISHED: Mapping[str, Description] = {
    "pixels": Description("Pixels", HAND_MADE, "16 x 16, centred"),
    "wavelet": Description("Wavelet", HAND_MADE, "signs of the largest", (0.622, 2735)),
    "lab_histogram": Description("Colour", HAND_MADE, "LAB histogram", (0.623, 2935)),
    "sift_words": Description("SIFT words", HAND_MADE, "bag of words", (0.655, 2863)),
    "fisher": Description("Fisher vectors", HAND_MADE, "of SIFT", (0.672, 3064)),
    "hog": Description("HOG", HAND_MADE, "oriented gradients", (0.684, 3099)),
    "texton_pyramid": Description(
        "Texton pyramid", HAND_MADE, "1,024 textons, max-pooled", (0.665, 3556)
    ),
}
# Registered descriptors that the table leaves out.
_WITHOUT_ROW = ("lbp",)
_FURTHER_DESCRIPTORS = {
    name: Description(name, HAND_MADE, descriptors.create_descriptor(name).title)
    for name in descriptors.DESCRIPTORS
    if name not in _PUBLISHED and name not in _WITHOUT_ROW
}

ROWS: Mapping[str, Description] = {
    **_PUBLISHED,
    **_FURTHER_DESCRIPTORS,
    "golden": Description(
        "Golden feature",
        LEARNED,
        "descriptors, weighted as ratings say",
        (0.803, 7165),
    ),
    "l1_hash_kpca": Description(
        "L1HashKPCA", LEARNED, "golden feature, hashed", (0.762, 6356)
    ),
    "oasis": Description("OASIS", LEARNED, "on L1HashKPCA", (0.792, 6813)),
    "softmax": Description(
        "Softmax", NETWORKS, "its last layer but one, unit length", (0.828, 5772)
    ),
    "softmax_further": Description(
        "Softmax, further", NETWORKS, "trained as long as those that rank"
    ),
    "softmax_logits": Description("Softmax, logits", NETWORKS, "centred, unit length"),
    "softmax_classes": Description(
        "Softmax, classes", NETWORKS, "probabilities of the training classes"
    ),
    "single_scale": Description(
        "Single-scale ranking", NETWORKS, "the trunk alone", (0.846, 6245)
    ),
    "oasis_single_scale": Description(
        "OASIS on single-scale", NETWORKS, "a similarity of it", (0.825, 6263)
    ),
    "single_scale_visual": Description(
        "Single-scale & visual",
        NETWORKS,
        "beside L1HashKPCA, weighted by validation",
        (0.841, 6765),
    ),
    "deep_ranking": Description(
        "Deep ranking", NETWORKS, "with a low-resolution path", (0.857, 7004)
    ),
}


def further_row(title: str, text: str) -> Description:
    """Returns the description of a network that is not the paper's.

    Args:
      title: Title of the row.
      text: Method, in a few words.
    """
    return Description(title, NETWORKS, text)


DESCRIPTORS = tuple(name for name, row in ROWS.items() if row.group == HAND_MADE)
# Networks to train for the rows of the group NETWORKS that are the paper's.
TRAINED = ("softmax", "softmax_further", "single_scale", "deep_ranking")
