"""Layouts: names of arrays in files of weights, mapped to variables of our networks.

A layout is a list of rules from their name to our path, `trunk/convs/0/kernel`. How an
array is transposed follows from the kind of our variable, in `weights`.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import os
import pathlib
import re

from deeprank_jax import files
from deeprank_jax.errors import WeightsError


@dataclasses.dataclass(frozen=True)
class Rule:
    r"""The variable that an array belongs to.

    Attributes:
      theirs: Regular expression that matches the array's whole name.
      ours: Path of the variable, with `\1` for the expression's first group. torch's
        words at its end are translated: `weight` to our `kernel` or `scale`,
        `running_mean` to `mean`, `running_var` to `var`.
      flattened: Channels, height and width of the input of a flattening, whose order
        differs from ours; for the linear layer that follows it.
    """

    theirs: str
    ours: str
    flattened: tuple[int, int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Layout:
    """Names of the arrays in one kind of file.

    Attributes:
      rules: Rules, of which the first that matches a name counts.
      ignore: Regular expressions of their names that need no variable.
      keep: Regular expressions of our paths that need no array.
      needs: Options of the network that the shapes require, for errors.
    """

    rules: Sequence[Rule]
    ignore: Sequence[str] = (r".*\.num_batches_tracked",)
    keep: Sequence[str] = (
        r"(embedding|embedding_norm|paths|others|head|decoder)/.*",
        r"trunk/pooling/.*",
    )
    needs: str = ""

    def our_name(self, name: str) -> tuple[str | None, Rule | None]:
        """Returns the path for an array's name, and the rule that matched."""
        for rule in self.rules:
            if match := re.fullmatch(rule.theirs, name):
                return match.expand(rule.ours), rule
        return None, None

    def may_ignore(self, name: str) -> bool:
        """Returns whether their array needs no variable."""
        return _matches_any(self.ignore, name)

    def may_keep(self, path: str) -> bool:
        """Returns whether our variable needs no array."""
        return _matches_any(self.keep, path)


def read_layout(path: str | os.PathLike[str]) -> Layout:
    """Reads a layout from a JSON file; `docs/weights.md` has an example.

    Raises:
      WeightsError: The file does not exist, is not JSON, or not a layout.
    """
    path = pathlib.Path(path)
    try:
        content = files.read_json(path)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{path}: cannot be read as JSON ({error}); docs/weights.md has an example."
        ) from error
    try:
        return _parse_layout(content)
    except (TypeError, IndexError, re.error) as error:
        raise WeightsError(
            f"{path}: not a layout ({error}); expected an object with `rules`, each "
            "with `theirs` and `ours`, and optionally `ignore`, `keep` and `needs`, as "
            "in docs/weights.md."
        ) from error


def _parse_layout(content: object) -> Layout:
    if not isinstance(content, Mapping) or not isinstance(content.get("rules"), list):
        raise TypeError("there is no list of rules")
    options = dict(content)
    rules = []
    for rule in options.pop("rules"):
        rules.append(Rule(**rule))
        if not isinstance(rules[-1].theirs, str):
            raise TypeError(f"{rules[-1].theirs!r} is not a regular expression")
        shape = rules[-1].flattened
        if shape is not None:
            if len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape):
                raise TypeError(f"flattened is {shape}, not channels, height, width")
            rules[-1] = dataclasses.replace(rules[-1], flattened=tuple(shape))
    layout = Layout(rules, **options)
    for names in (layout.ignore, layout.keep):
        if not isinstance(names, (list, tuple)):
            raise TypeError(f"{names!r} is not a list of regular expressions")
    for pattern in (*layout.ignore, *layout.keep):
        re.compile(pattern)
    for rule in rules:
        _check_groups(rule)
    return layout


def _check_groups(rule: Rule) -> None:
    """Raises an error of re if `ours` refers to a group that `theirs` lacks."""
    # An alternative that matches the empty string, to have a match to expand.
    match = re.fullmatch(f"{rule.theirs}|", "")
    assert match is not None
    match.expand(rule.ours)


def _matches_any(patterns: Iterable[str], name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _alexnet() -> Layout:
    return Layout(
        [
            *_numbered(r"features\.{}\.(\w+)", (0, 3, 6, 8, 10), r"trunk/convs/{}/\1"),
            Rule(r"classifier\.1\.weight", "trunk/fcs/0/kernel", (256, 6, 6)),
            *_numbered(r"classifier\.{}\.(\w+)", (1, 4), r"trunk/fcs/{}/\1"),
            Rule(r"classifier\.6\.(\w+)", r"head/\1"),
        ],
        ignore=(r"classifier\.6\..*",),
        needs="config.model.trunk with widths=(64, 192, 384, 256, 256), groups=1, "
        "local_response_norm=False, and config.data.image_size=224",
    )


_VGG16_CONVS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_VGG16_NEEDS = "config.data.image_size=224"


def _torchvision_vgg16() -> Layout:
    return Layout(
        [
            *_numbered(r"features\.{}\.(\w+)", _VGG16_CONVS, r"trunk/convs/{}/\1"),
            Rule(r"classifier\.0\.weight", "trunk/fcs/0/kernel", (512, 7, 7)),
            *_numbered(r"classifier\.{}\.(\w+)", (0, 3), r"trunk/fcs/{}/\1"),
            Rule(r"classifier\.6\.(\w+)", r"head/\1"),
        ],
        ignore=(r"classifier\.6\..*",),
        needs=_VGG16_NEEDS,
    )


def _timm_vgg16() -> Layout:
    return Layout(
        [
            *_numbered(r"features\.{}\.(\w+)", _VGG16_CONVS, r"trunk/convs/{}/\1"),
            # Convolutions over the whole remaining image: no flattening to describe.
            *_numbered(r"pre_logits\.fc{}\.(\w+)", (1, 2), r"trunk/fcs/{}/\1"),
            Rule(r"head\.fc\.(\w+)", r"head/\1"),
        ],
        ignore=(r"head\.fc\..*",),
        needs=_VGG16_NEEDS,
    )


def _resnet50() -> Layout:
    rules = [
        Rule(r"conv1\.(\w+)", r"trunk/stem/\1"),
        Rule(r"bn1\.(\w+)", r"trunk/stem_norm/\1"),
        Rule(r"fc\.(\w+)", r"head/\1"),
    ]
    blocks = [(s, b) for s, count in enumerate((3, 4, 6, 3), 1) for b in range(count)]
    for i, (stage, block) in enumerate(blocks):
        theirs, ours = rf"layer{stage}\.{block}\.", f"trunk/blocks/{i}/"
        rules += _numbered(theirs + r"conv{}\.(\w+)", (1, 2, 3), ours + r"convs/{}/\1")
        rules += _numbered(theirs + r"bn{}\.(\w+)", (1, 2, 3), ours + r"norms/{}/\1")
        rules += [
            Rule(theirs + r"downsample\.0\.(\w+)", ours + r"shortcut/\1"),
            Rule(theirs + r"downsample\.1\.(\w+)", ours + r"shortcut_norm/\1"),
        ]
    return Layout(rules, ignore=(r"fc\..*", r".*\.num_batches_tracked"))


def _efficientnet_lite() -> Layout:
    parts = {
        "_expand_conv": "expand",
        "_bn0": "expand_norm",
        "_depthwise_conv": "depthwise",
        "_bn1": "depthwise_norm",
        "_project_conv": "project",
        "_bn2": "project_norm",
    }
    return Layout(
        [
            Rule(r"_conv_stem\.(\w+)", r"trunk/stem/\1"),
            Rule(r"_bn0\.(\w+)", r"trunk/stem_norm/\1"),
            *[
                Rule(rf"_blocks\.(\d+)\.{theirs}\.(\w+)", rf"trunk/blocks/\1/{ours}/\2")
                for theirs, ours in parts.items()
            ],
            Rule(r"_conv_head\.(\w+)", r"trunk/head/\1"),
            Rule(r"_bn1\.(\w+)", r"trunk/head_norm/\1"),
            Rule(r"_fc\.(\w+)", r"head/\1"),
        ],
        ignore=(r"_fc\..*", r".*\.num_batches_tracked"),
    )


def _numbered(theirs: str, numbers: Sequence[int], ours: str) -> list[Rule]:
    """Returns a rule for each of their numbers, which are ours 0, 1, 2."""
    return [
        Rule(theirs.format(number), ours.format(i)) for i, number in enumerate(numbers)
    ]


# The first layout of a trunk is its default.
LAYOUTS: Mapping[str, Layout] = {
    "torchvision/alexnet": _alexnet(),
    "torchvision/vgg16": _torchvision_vgg16(),
    "torchvision/resnet50": _resnet50(),
    "timm/vgg16": _timm_vgg16(),
    # timm uses torchvision's names for this network.
    "timm/resnet50": _resnet50(),
    **{
        f"efficientnet_lite_pytorch/efficientnet_lite{i}": _efficientnet_lite()
        for i in range(3)
    },
}
