import pytest

from deeprank_jax.config import check_keys, list_configs, load_config, read_run_config
from deeprank_jax.errors import ConfigError
from deeprank_jax.relevance import create_relevance

MINE = """
from deeprank_jax.configs import base


def get_config():
    config = base.get_config()
    config.batch_size = 7
    return config
"""


def test_a_config_is_found_by_its_bare_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config("emoji", ["--config.seed=3"])
    assert config.data.source.name == "emoji"
    assert config.seed == 3
    with pytest.raises(AttributeError):
        config.sede = 4


def test_a_file_of_the_user_s_own_may_import_ours(tmp_path):
    path = tmp_path / "emoji.py"  # The name of one of ours.
    path.write_text(MINE)
    assert load_config(str(path)).batch_size == 7


def test_every_config_is_listed_with_its_first_line():
    configs = list_configs()
    assert "base" not in configs
    assert configs["emoji"].startswith("The demo")
    assert all(line.endswith(".") or ":" in line for line in configs.values())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("emojy", r"'emojy' is not a config \(did you mean 'emoji'\?\); choose one of"),
        ("configs/emojy.py", r"no such file \(did you mean 'emoji'\?\); correct"),
    ],
)
def test_a_missing_config_gets_the_nearest_name(name, message):
    with pytest.raises(ConfigError, match=message):
        load_config(name)


def test_a_folder_is_not_a_config(tmp_path):
    with pytest.raises(ConfigError, match=r"is not a Python file; it must end in \.py"):
        load_config(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", r"defines no get_config\(\)"),
        ("def get_config():\n    return {}\n", r"get_config\(\) returned dict"),
        ("def get_config():\n    return y\n", r"mine\.py:2: NameError: name 'y'"),
        ("import nowhere\n", r"mine\.py:1: ModuleNotFoundError"),
        ("def get_config(:\n", r"mine\.py: SyntaxError"),
    ],
)
def test_an_error_in_a_config_file_names_its_line(text, message, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(str(path))


def test_plugins_are_imported_and_kept_by_their_absolute_paths(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from deeprank_jax.relevance import register\n"
        "@register('of_a_plugin')\n"
        "def of_a_plugin(a, b):\n"
        "    return 1.0 * (a == b).all(-1)\n"
    )
    monkeypatch.chdir(tmp_path)
    config = load_config("folder", ["--config.plugins=('mine.py', 'json')"])
    assert config.plugins == (str(tmp_path / "mine.py"), "json")
    assert create_relevance("of_a_plugin")
    (tmp_path / "config.json").write_text(config.to_json_best_effort())
    assert tuple(read_run_config(tmp_path).plugins) == config.plugins
    (tmp_path / "mine.py").unlink()
    with pytest.raises(
        ConfigError, match=r"config\.plugins: .*mine\.py does not exist"
    ):
        read_run_config(tmp_path)
    with pytest.raises(ConfigError, match="ModuleNotFoundError: No module named 'none"):
        load_config("folder", ["--config.plugins=('none.such',)"])


def test_a_config_of_the_user_s_own_may_lack_keys(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    return ConfigDict(dict(data=dict(dir='x'))).lock()\n"
    )
    assert load_config(str(path), ["--config.data.dir=y"]).data.dir == "y"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("c.bacth_size = 3", r"config\.bacth_size is not a key .*'batch_size'"),
        ("c.data.dri = 'x'", r"config\.data\.dri is not a key .*'data\.dir'"),
    ],
)
def test_a_misspelt_key_of_a_config_file_is_refused(change, message, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from deeprank_jax.configs import base\n"
        "def get_config():\n"
        f"    c = base.get_config()\n    {change}\n    return c\n"
    )
    with pytest.raises(ConfigError, match=message):
        load_config(str(path))


def test_a_missing_section_is_named_where_all_are_needed():
    config = load_config("folder")
    check_keys(config, complete=True)
    with config.unlocked():
        config.loss = dict(name="cross_entropy")  # Which has no miner.
        check_keys(config, complete=True)
        del config.loss
    check_keys(config)
    with pytest.raises(ConfigError, match=r"config\.loss is missing; start from"):
        check_keys(config, complete=True)
