"""Samplers of small sets of records, for tests."""

import types

from deeprank_jax.sampling import TripletSampler, create_candidates


def create_candidates_of(attributes, relevance, category_level=0):
    """Candidates whose attributes are also their labels."""
    records = types.SimpleNamespace(
        labels=attributes, attributes=attributes, describe="record {}".format
    )
    return create_candidates(records, relevance, category_level)


def create_sampler(attributes, relevance, *, category_level=0, **options):
    candidates = create_candidates_of(attributes, relevance, category_level)
    return TripletSampler(candidates, relevance, **options)
