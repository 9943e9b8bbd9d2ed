"""`tools.benchmark embed` measures what it says, with few images."""

from helpers import shrunk
import numpy as np
import pytest

from tools.benchmark import embed

NAMES = {
    "embed_throughput_share",
    "embed_images_per_s",
    "embed_forward_seconds",
    "embed_forward_seconds_median",
    "embed_table_seconds",
    "embed_table_seconds_median",
}


@pytest.mark.full
def test_every_number_is_measured(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "_ROUNDS", 2)
    folder = shrunk.write_images(tmp_path / "photos", num_classes=3, num_images=3)
    values = embed.measure(str(exported), str(folder))
    assert values.keys() == NAMES
    assert all(np.isfinite(value) and value > 0 for value in values.values())
    seconds = values["embed_table_seconds"]
    assert values["embed_images_per_s"] == 9 / seconds
    assert values["embed_throughput_share"] == values["embed_forward_seconds"] / seconds
    # Not the fastest round of one beside the slowest of the other.
    for name in ("forward", "table"):
        fastest = values[f"embed_{name}_seconds"]
        assert fastest <= values[f"embed_{name}_seconds_median"]
