"""Checkpoints are kept, found again, and never believed if they are damaged."""

import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import checksums
from deeprank_jax.distributed import devices
from deeprank_jax.training import checkpoints


def create_state(seed, width=3):
    key = jax.random.key(seed)
    return devices.replicate(
        {
            "params": {"kernel": jax.random.normal(key, (width, 2))},
            "counts": (jnp.int32(seed), jnp.zeros(())),
        }
    )


@pytest.fixture
def opened(tmp_path):
    saved = checkpoints.Checkpoints(tmp_path / "here", best_metric="recall")
    yield saved
    saved.close()


def test_what_is_saved_comes_back_bit_for_bit(opened):
    state = create_state(1)
    opened.save(1, state, {"seed": 7, "step": 1})
    opened.wait()
    restored, run_state = opened.restore(create_state(2), 1)
    assert run_state == {"seed": 7, "step": 1}
    for ours, theirs in zip(
        jax.tree.leaves(state), jax.tree.leaves(restored), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.sharding == theirs.sharding
        assert ours.dtype == theirs.dtype


def test_the_best_and_the_last_two_are_kept(opened):
    for step, recall in [(1, 0.3), (2, 0.5), (3, 0.4), (4, None), (5, 0.2), (6, None)]:
        metrics = None if recall is None else {"recall": recall}
        opened.save(step, create_state(step), {}, metrics)
        opened.wait()
    names = {path.name for path in opened.directory.iterdir()}
    assert names == {"2", "5", "6"}
    assert (opened.best_step(), opened.latest_step()) == (2, 6)
    reopened = checkpoints.Checkpoints(opened.directory, best_metric="recall")
    assert (reopened.best_step(), reopened.latest_step()) == (2, 6)
    reopened.close()


def test_nothing_saved_is_nothing_found(opened):
    assert opened.latest_step() is None
    assert opened.best_step() is None


@pytest.mark.parametrize("other", ["shape", "name"])
def test_another_model_is_refused(opened, other):
    opened.save(1, create_state(1), {})
    opened.wait()
    template = create_state(1, width=4) if other == "shape" else {"kernel": jnp.ones(2)}
    with pytest.raises(checkpoints.CheckpointError) as error:
        opened.restore(template, 1)
    assert "another model" in str(error.value)
    assert ("params/kernel" if other == "shape" else "missing") in str(error.value)
    assert "--workdir" in str(error.value)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Returns a folder of checkpoints: 2, the best, 5 and 6."""
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    opened = checkpoints.Checkpoints(directory, best_metric="recall")
    run_state = {"config": {"evaluation.best_metric": "recall"}}
    for step, recall in [(2, 0.5), (3, 0.4), (5, 0.2), (6, 0.3)]:
        opened.save(step, create_state(step), run_state, {"recall": recall})
    opened.close()
    return directory


@pytest.fixture
def copied(saved, tmp_path):
    for name in ("checkpoints", "checkpoints_copy"):
        shutil.copytree(saved.with_name(name), tmp_path / name)
    return tmp_path / "checkpoints"


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-2]),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": pathlib.Path.unlink,
}


def reopen(directory):
    return checkpoints.Checkpoints(directory, best_metric="recall")


def assert_is_step(opened, step):
    restored, _ = opened.restore(create_state(0), step)
    for ours, theirs in zip(
        jax.tree.leaves(create_state(step)), jax.tree.leaves(restored), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_training_continues_from_the_newest_undamaged_step(
    copied, damage, warnings_logged
):
    names = [p.relative_to(copied / "6") for p in (copied / "6").rglob("*")]
    files = sorted(name for name in names if (copied / "6" / name).is_file())
    assert {"SHA256SUMS", "metrics"} <= {name.name for name in files}
    whole = shutil.copytree(copied / "6", copied.with_name("whole"))
    for name in files:
        DAMAGES[damage](copied / "6" / name)
        opened = reopen(copied)
        assert (opened.latest_step(), opened.best_step()) == (5, 2), name
        assert_is_step(opened, 5)
        opened.close()
        assert re.match(
            rf"{copied / '6'} (is damaged|was not saved to its end)",
            warnings_logged[-1],
        )
        moved = max(
            copied.with_name("checkpoints_damaged").iterdir(),
            key=lambda path: path.stat().st_ctime_ns,
        )
        assert f"moved to {moved}" in warnings_logged[-1]
        shutil.copytree(whole, copied / "6")


def array_file(step_folder):
    return max(
        (step_folder / "state").rglob("d/*"), key=lambda path: path.stat().st_size
    )


def test_the_best_step_has_a_copy(copied, warnings_logged):
    assert [p.name for p in copied.with_name("checkpoints_copy").iterdir()] == ["2"]
    flip(array_file(copied / "2"))
    opened = reopen(copied)
    assert "its copy is used" in warnings_logged[-1]
    assert (opened.latest_step(), opened.best_step()) == (6, 2)
    assert_is_step(opened, 2)
    opened.close()


def test_a_damaged_copy_is_not_used(copied):
    for name in ("checkpoints", "checkpoints_copy"):
        flip(array_file(copied.with_name(name) / "2"))
    opened = reopen(copied)
    assert (opened.latest_step(), opened.best_step()) == (6, 6)
    opened.close()
    assert [p.name for p in copied.with_name("checkpoints_copy").iterdir()] == ["6"]


def test_damage_while_a_process_runs_is_named(copied):
    opened = reopen(copied)
    flip(array_file(copied / "6"))
    with pytest.raises(checkpoints.CheckpointError, match=r"6 is damaged .*changed"):
        opened.restore(create_state(0), 6)
    opened.close()


def test_checkpoints_of_an_earlier_version_are_sealed(copied):
    shutil.rmtree(copied.with_name("checkpoints_copy"))
    for step in ("2", "5", "6"):
        (copied / step / checksums.CHECKSUMS).unlink()
    opened = reopen(copied)
    assert (opened.latest_step(), opened.best_step()) == (6, 2)
    assert_is_step(opened, 6)
    opened.close()
    for folder in (*copied.iterdir(), copied.with_name("checkpoints_copy") / "2"):
        assert checksums.find_damage(folder) is None


def test_a_folder_that_is_no_checkpoint_is_set_aside(copied):
    (copied / "999").mkdir()
    opened = reopen(copied)
    assert opened.latest_step() == 6
    opened.close()


def test_a_network_is_read_from_the_copy_if_its_step_is_damaged(copied):
    expected = checkpoints.read_network(copied).arrays
    flip(array_file(copied / "2"))
    found = checkpoints.read_network(copied)
    assert found.where == copied.with_name("checkpoints_copy") / "2"
    np.testing.assert_array_equal(
        found.arrays["params/kernel"], expected["params/kernel"]
    )
    flip(array_file(copied / "6"))
    with pytest.raises(checkpoints.CheckpointError, match="6 is damaged"):
        checkpoints.read_network(copied / "6")
    (copied / "5" / checksums.CHECKSUMS).unlink()  # As while it is being sealed.
    assert checkpoints.read_network(copied / "5").where == copied / "5"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_network_is_read_whatever_became_of_other_steps(copied, damage):
    expected = checkpoints.read_network(copied)
    DAMAGES[damage](copied / "6" / "metrics" / "metrics")
    found = checkpoints.read_network(copied)
    assert (found.where, found.config) == (expected.where, expected.config)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_best_is_not_chosen_by_a_damaged_metric(copied, damage):
    """Without its copy, as in a run of an earlier version."""
    shutil.rmtree(copied.with_name("checkpoints_copy"))
    assert checkpoints.read_network(copied).where == copied / "2"
    DAMAGES[damage](copied / "5" / "metrics" / "metrics")
    with pytest.raises(checkpoints.CheckpointError, match="5 is damaged"):
        checkpoints.read_network(copied)


def test_only_the_newest_step_can_be_interrupted(copied):
    """Others without checksums are of an earlier version."""
    (copied / "2" / checksums.CHECKSUMS).unlink()
    (copied / "6" / checksums.CHECKSUMS).unlink()
    opened = reopen(copied)
    assert (opened.latest_step(), opened.best_step()) == (5, 2)
    assert_is_step(opened, 2)
    opened.close()


@pytest.mark.parametrize("failure", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_a_copy_that_fails_leaves_all_as_it_was(copied, monkeypatch, failure):
    flip(array_file(copied / "2"))

    def fail(source, target):
        target.mkdir()
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", fail)
        error = checkpoints.CheckpointError
        error = error if isinstance(failure, OSError) else KeyboardInterrupt
        with pytest.raises(error):
            reopen(copied)
    copies = copied.with_name("checkpoints_copy")
    assert [p.name for p in copies.iterdir()] == ["2"]
    assert (copied / "2").exists()
    opened = reopen(copied)
    assert_is_step(opened, 2)
    opened.close()


def test_a_step_that_was_set_aside_only_is_restored_from_its_copy(copied):
    """As after a kill while it was replaced."""
    shutil.rmtree(copied / "2")
    opened = reopen(copied)
    assert opened.best_step() == 2
    assert_is_step(opened, 2)
    opened.close()


def test_a_damaged_copy_is_made_again(copied):
    copies = copied.with_name("checkpoints_copy")
    flip(array_file(copies / "2"))
    (copies / ".2.tmp").mkdir()
    reopen(copied).close()
    assert [p.name for p in copies.iterdir()] == ["2"]
    assert checksums.find_damage(copies / "2") is None


def test_the_copy_of_deleted_checkpoints_goes(copied):
    shutil.rmtree(copied)
    opened = reopen(copied)
    assert opened.latest_step() is None
    assert list(copied.with_name("checkpoints_copy").iterdir()) == []
    opened.save(2, create_state(9), {}, {"recall": 0.1})
    opened.close()
    opened = reopen(copied)
    flip(array_file(copied / "2"))
    opened.close()
    opened = reopen(copied)
    restored, _ = opened.restore(create_state(0), 2)
    expected = jax.tree.leaves(create_state(9))
    for ours, theirs in zip(expected, jax.tree.leaves(restored), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    opened.close()


def test_a_kill_while_the_only_step_is_replaced_loses_nothing(copied):
    for step in ("5", "6"):
        shutil.rmtree(copied / step)
    copied.with_name("checkpoints_damaged").mkdir()
    (copied / "2").rename(copied.with_name("checkpoints_damaged") / "2")
    opened = reopen(copied)
    assert_is_step(opened, 2)
    opened.close()


def test_a_step_that_training_removes_meanwhile_is_not_called_damaged(
    copied, monkeypatch
):
    """A better one is there by then."""
    read = checkpoints._read_network

    def remove_first(where):
        monkeypatch.setattr(checkpoints, "_read_network", read)
        shutil.rmtree(copied / "2")
        shutil.rmtree(copied.with_name("checkpoints_copy"))
        raise FileNotFoundError(where)

    monkeypatch.setattr(checkpoints, "_read_network", remove_first)
    assert checkpoints.read_network(copied.parent).where.parent == copied


def test_a_step_that_stays_and_cannot_be_read_is_damaged(copied, monkeypatch):
    def fail(where):
        calls.append(where)
        raise FileNotFoundError(where)

    calls = []
    monkeypatch.setattr(checkpoints, "_read_network", fail)
    with pytest.raises(checkpoints.CheckpointError, match="is damaged"):
        checkpoints.read_network(copied)
    assert len(calls) == 1
