"""Inputs of a report, of records without image files."""

import numpy as np

from deeprank_jax.data.records import Records
from deeprank_jax.relevance import Hierarchy
from deeprank_jax.report import DrawnTriplets, ReportInputs

RELEVANCE = Hierarchy((0.001, 0.02, 1.0))
_NASTY = 'fox <img src=x> & "friends" 狐'


def create_records(num_classes=15, per_class=4):
    classes = np.repeat(np.arange(num_classes), per_class)
    labels = np.stack([classes // 6, classes // 3, classes], 1).astype(np.int32)
    names = (
        ("animals", "food", "places"),
        tuple(f"group {i}" for i in range(5)),
        (_NASTY, *(f"class {i}" for i in range(1, num_classes))),
    )
    return Records(
        name="shapes/test",
        labels=labels,
        level_names=("category", "subcategory", "shape"),
        label_names=names,
        read=lambda index: b"",
        describe=lambda index: f"images/é {index}.png",
    )


def create_inputs(**changes):
    records = create_records()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (len(records), 40, 40, 3), dtype=np.uint8)
    thumbnails = lambda indices: images[indices]
    systems = dict(model=0.75, untrained=0.25, pixels=0.5)
    results = {
        "validation": {"retrieval": {"recall@1": systems}},
        "test": {
            "retrieval": {"recall@1": systems, "num_queries": dict(model=60.0)},
            "triplets": {"score_at_30": dict(model=-1234.0, pixels=float("nan"))},
        },
    }
    metrics = [{"step": s, "train/loss": 1.0 / s, "note": "x"} for s in range(1, 900)]
    metrics += [{"step": s, "validation/retrieval/recall@1": 0.5} for s in (1, 900)]
    metrics += [{"step": 900, "validation/retrieval/recall@5": 0.6}]
    inputs = dict(
        title="shapes",
        command="python -m deeprank_jax.main --config='a <b>'",
        facts={"dataset": "shapes & sizes"},
        results=results,
        metrics=metrics,
        embeddings=rng.normal(size=(len(records), 8)).astype(np.float32),
        records=records,
        relevance=RELEVANCE,
        thumbnails=thumbnails,
        num_classes={"validation": 15, "test": 15},
        drawn=create_drawn(records, thumbnails),
    )
    return ReportInputs(**(inputs | changes))


def create_drawn(records, thumbnails, **changes):
    """Three triplets, of which the second has an out-of-class negative."""
    indices = np.array([[0, 1, 9], [4, 7, 50], [30, 31, 44]])
    labels = records.labels[indices]
    values = dict(
        indices=indices,
        relevance=RELEVANCE.pairwise(labels[:, :1], labels[:, 1:]),
        in_class=labels[:, :1, 0] == labels[:, 2:, 0],
        steps=np.array([0, 10, 2000]),
        records=records,
        thumbnails=thumbnails,
        out_of_class=0.2,
    )
    return DrawnTriplets(**(values | changes))
