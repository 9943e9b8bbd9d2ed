"""A plan of the paper's table is refused before hours of work, not after."""

import pathlib

import pytest

from deeprank_jax.errors import ConfigError
from deeprank_jax.experiments.paper_table import plan

PLAN = """
from deeprank_jax.configs import emoji

NETWORKS = {{
    "softmax": {{"task": "classification", "loss": "cross_entropy"}},
    "softmax_further": {{"init_from": "{{softmax}}"}},
    "single_scale": {{"evaluation.evaluators.rated_triplets.file": "of/{{split}}.csv"}},
    "deep_ranking": {{}},
    {networks}
}}
SWEEP = {{"a": {{"sampler.mode": "uniform", "sampler.out_of_class": 0.2}}, {sweep}}}
SWEEP_CONFIG = "emoji"
get_config = emoji.get_config
"""
FURTHER = 'FURTHER_ROWS = {"more": ("More", "with all pairs")}\n'


@pytest.fixture
def read(tmp_path):
    def read(networks="", sweep="", values=(), sweeps=True):
        path = tmp_path / "a_plan.py"
        path.write_text(PLAN.format(networks=networks, sweep=sweep))
        return plan.read_plan(path, list(values), sweeps=sweeps)

    return read


def test_folders_of_networks_are_filled_in_and_nothing_else(read):
    found = read(values=["seed=5"])
    folder = pathlib.Path("x/y")
    assert found.settings("softmax_further", folder) == {"init_from": "x/y/softmax"}
    rated = found.settings("single_scale", folder)
    assert rated == {"evaluation.evaluators.rated_triplets.file": "of/{split}.csv"}
    assert found.config.seed == 5
    assert found.sweep.keys() == {"a"}
    assert not read(sweeps=False).sweep


def test_further_networks_have_rows_of_their_own(read, tmp_path):
    path = tmp_path / "further.py"
    path.write_text(FURTHER + PLAN.format(networks='"more": {},', sweep=""))
    (row,) = plan.read_plan(path, [], sweeps=False).further.values()
    assert (row.name, row.group, row.text) == ("More", "Networks", "with all pairs")
    for before, after, message in (
        ('"more"', '"hog"', r"FURTHER_ROWS\['hog'\] in .* name of a row of the paper"),
        ('("More", "with all pairs")', '"More"', "is 'More'; give a title and a few"),
        ('("More", "with all pairs")', '("More",)', "; give a title and a few words"),
    ):
        text = FURTHER.replace(before, after)
        path.write_text(text + PLAN.format(networks='"more": {},', sweep=""))
        with pytest.raises(ConfigError, match=message):
            plan.read_plan(path, [], sweeps=False)
    path.write_text(FURTHER + PLAN.format(networks="", sweep=""))
    with pytest.raises(ConfigError, match="FURTHER_ROWS, which has more"):
        plan.read_plan(path, [], sweeps=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"networks": '"more": {},'},
            r"deep_ranking, more; the rows .* made of softm.* words in FURTHER_ROWS\.",
        ),
        (
            {"networks": '"softmax": {"init_from": "{deep_ranking}"},'},
            r"NETWORKS\['softmax'\] in .* starts from deep_ranking, which is not trai",
        ),
        (
            {"networks": '"deep_ranking": {"init_from": "{softmx}"},'},
            "starts from softmx, which .* before it are softmax, softmax_further, sing",
        ),
        (
            {"networks": '"single_scale": {"num_steps": 0},'},
            r"num_steps must be at least 1, got 0\. It comes from NETWORKS\['single_sc",
        ),
        (
            {"networks": '"softmax": {"tusk": "ranking"},'},
            r"config.tusk is not a key of the config.*\..* It comes from "
            r"NETWORKS\['softmax'\] in .*a_plan\.py",
        ),
        (
            {"networks": '"softmax": {"task": "classification", "loss": "arcface"},'},
            r"softmax.* learns by 'arcface', .*\"cross_entropy\"; set loss to that",
        ),
        (
            {"sweep": '"b": {"sampler.mode": "uniform"}'},
            r"SWEEP\['b'\] in .* lacks sampler\.out_of_class",
        ),
        (
            {"sweep": '"b": {"sampler.mode": "all", "sampler.out_of_class": 0.5}'},
            r"sampler.mode must be 'importance' or .* It comes from SWEEP\['b'\]",
        ),
        (
            {"sweep": '"b": {"sampler.mode": "uniform", "sampler.out_of_class": 7.0}'},
            r"sampler.out_of_class must be in \[0, 1\], got 7.0.* It comes from "
            r"SWEEP\['b'\]",
        ),
        ({"values": ["sede=1"]}, r"^config.sede is not a key"),
    ],
)
def test_what_cannot_be_made_is_told(read, options, message):
    with pytest.raises(ConfigError, match=message):
        read(**options)


def test_a_sweep_that_is_not_wanted_is_not_looked_at(read):
    assert not read(sweep='"b": {"nonsense": 1}', sweeps=False).sweep
