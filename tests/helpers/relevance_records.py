"""Records without images, known by names such as `r3`."""

import numpy as np

from deeprank_jax.data.records import Records


def create_records(size, *, name="pool/train", start=0, columns=None):
    """Returns records of two classes in each group, named `r<start>` and so on."""
    fine = np.arange(size) % 4
    return Records(
        name=name,
        labels=np.stack([fine // 2, fine], axis=1).astype(np.int32),
        level_names=("group", "class"),
        label_names=(("0", "1"), ("0", "1", "2", "3")),
        read=lambda index: b"",
        describe=lambda index: f"r{start + index}",
        columns=columns or {},
    )
