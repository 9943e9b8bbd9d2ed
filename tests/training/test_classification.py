import numpy as np
import pytest

from deeprank_jax.training.tasks import classification

NUM_CLASSES = 7
HELD_OUT = (2, 3, 5, 7, 11)
CLASSES = classification.Classes(
    names=tuple("abcdefg"),
    labels=np.arange(12, dtype=np.int32) % NUM_CLASSES,
    training=np.setdiff1d(np.arange(12), HELD_OUT),
    held_out=np.array(HELD_OUT),
)


class Reader:
    """Gives images that are their records' numbers, and some that cannot be read."""

    def __init__(self, bad=()):
        self.bad, self.loaded = bad, []

    def load(self, indices):
        self.loaded.extend(indices.tolist())
        images = np.zeros((len(indices), 2, 2, 3), np.uint8)
        ok = ~np.isin(indices, self.bad)
        images[ok] = indices[ok, None, None, None]
        return images, ok


def logits_fn(images):
    """Says of record `i` that it is of class `i % 5`, then the next, and so on."""
    assert images.shape == (2, 2, 2, 3)  # Always a whole batch.
    first = images[:, 0, 0, 0].astype(int) % 5
    return -((np.arange(NUM_CLASSES) - first[:, None]) % NUM_CLASSES).astype(float)


@pytest.mark.parametrize("bad", [(), (3,), (5,), (7, 11)], ids=str)
def test_what_cannot_be_read_is_not_counted(bad):
    above = {i: (i % NUM_CLASSES - i % 5) % NUM_CLASSES for i in HELD_OUT}
    assert list(above.values()) == [0, 0, 5, 5, 3]
    counted = np.array([above[i] for i in HELD_OUT if i not in bad])
    reader = Reader(bad)
    told = classification.measure(CLASSES, reader, logits_fn, 2)
    assert reader.loaded == list(HELD_OUT)
    assert told == {f"top{k}": pytest.approx(np.mean(counted < k)) for k in (1, 5)}


def test_of_no_image_nothing_is_known():
    told = classification.measure(CLASSES, Reader(bad=HELD_OUT), logits_fn, 2)
    assert told.keys() == {"top1", "top5"}
    assert np.isnan(list(told.values())).all()


def test_it_can_be_ended_early():
    calls = []

    def check():
        calls.append(len(reader.loaded))
        if len(calls) == 2:
            raise InterruptedError

    reader = Reader()
    with pytest.raises(InterruptedError):
        classification.measure(CLASSES, reader, logits_fn, 2, check=check)
    assert calls == [0, 2]
