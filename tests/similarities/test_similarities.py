import inspect

import numpy as np
import pytest

from deeprank_jax import similarities
from deeprank_jax.errors import ConfigError


@pytest.mark.parametrize("name", similarities.SIMILARITIES)
def test_every_kind_has_a_formula_and_explains_its_options(name):
    kind = similarities.SIMILARITIES[name]
    doc = " ".join(inspect.getdoc(x) or "" for x in kind.__mro__[:-1])
    assert ".. math::" in (kind.__doc__ or "")
    for option in similarities.SIMILARITIES.options(name):
        assert f"{option}: " in doc
    assert similarities.create_similarity(name).describe()


def test_kinds_are_fixed_or_learned():
    assert similarities.fixed_names() == [
        "squared_euclidean", "euclidean", "cosine", "angle",
    ]  # fmt: skip
    assert similarities.learned_names() == [
        "linear", "bilinear", "projected_cosine", "simnet", "out_of_domain",
    ]  # fmt: skip


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match=r"'simet' is not known \(did you mean 'simn"):
        similarities.create_similarity("simet")
    with pytest.raises(
        ConfigError, match="'angle' has nothing to train; choose one of"
    ):
        similarities.create_learned("angle")
    with pytest.raises(ConfigError, match="'angle'; its options are: none"):
        similarities.create_similarity("angle", {"width": 3})


def test_a_kind_can_be_registered():
    @similarities.register_similarity("manhattan")
    class Manhattan:
        is_distance = True

        def __call__(self, a, b):
            return np.abs(a - b).sum(axis=1)

        def describe(self):
            return "sum of the differences"

    distance = similarities.create_similarity("manhattan")
    assert distance(np.zeros((1, 3)), np.ones((1, 3))) == [3.0]
    assert "manhattan" in similarities.fixed_names()
