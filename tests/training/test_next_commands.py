"""Commands that the report of a run shows, against the parser of the command line."""

import os
import shlex

import ml_collections
import pytest

from deeprank_jax.cli.__main__ import create_parser
from deeprank_jax.config import load_config, saved_values
from deeprank_jax.training.next_commands import next_commands


def parse(name, workdir, **data):
    """Returns the options of each command, by the command's name."""
    config = load_config(name)
    config.data.update(data)
    commands = next_commands(config, workdir)
    # The report has those of the run's config, the end of a run those of the saved one.
    saved = ml_collections.ConfigDict(saved_values(config))
    assert next_commands(saved, workdir) == commands
    parsed = {}
    for line in commands.values():
        program, command, *words = shlex.split(line)
        assert program == "deeprank"
        parsed[command] = create_parser(command).parse_args([command, *words])
    return parsed


def test_a_run_is_exported_indexed_and_searched():
    options = parse("folder", "my runs/1", dir="my photos")
    assert options["export"].workdir == "my runs/1"
    assert options["index"].source == "my photos"
    assert options["export"].out == options["index"].model == "models/1"
    assert options["search"].index == options["index"].out
    assert options["compare-runs"].runs[0] == "my runs/1"


def test_tiles_are_mapped_and_not_indexed():
    options = parse("tiles", "runs/slides", dir="slides")
    assert options["tile-map"].model == options["export"].out == "models/slides"
    assert options.keys() == {"export", "tile-map", "compare-runs"}


def test_images_of_a_dataset_are_called_as_commands_call_them():
    assert parse("emoji", "runs/emoji")["index"].source == "tfds:emoji/test"
    elsewhere = parse("emoji", "runs/emoji", dir="/data")["index"]
    assert (elsewhere.source, elsewhere.data_dir) == ("tfds:emoji/test", "/data")
    photos = parse("photo_views", "runs/photo_views")["index"]
    assert photos.source == "tfds:photo_views/test"


@pytest.mark.parametrize(
    ("directory", "source"),
    [
        ("photos/2024", "photos/2024"),
        ("{}/photos", "photos"),
        ("{}", "."),
        ("{}-more/photos", "{}-more/photos"),
        ("../photos", "{}/../photos"),
        ("~/photos", "/home/her/photos"),
    ],
)
def test_images_are_named_as_they_are_typed_in_the_working_directory(
    tmp_path, monkeypatch, directory, source
):
    monkeypatch.setenv("HOME", "/home/her")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    here = tmp_path / "here"
    options = parse("folder", "runs/1", dir=directory.format(here))["index"]
    assert options.source == os.path.normpath(source.format(here))
