import numpy as np

from deeprank_jax.search.votes import vote


def test_near_neighbours_have_more_of_the_vote():
    found = vote(["a", "b", "b"], np.array([0.0, 1.0, 1.0]), 1.0)
    whole = 1 + 2 * np.exp(-1)
    assert [name for name, _ in found] == ["a", "b"]
    np.testing.assert_allclose(
        [share for _, share in found], [1 / whole, 2 * np.exp(-1) / whole]
    )
    # So far that no vote would be left, were they not counted from the nearest.
    assert vote(["a"], np.array([1e6]), 1e-3) == [("a", 1.0)]
    assert vote([], np.zeros(0), 1.0) == []
