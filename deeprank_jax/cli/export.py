"""Exports a run's best checkpoint as one folder that the other commands use.

For example:
  deeprank export --workdir=runs/emoji --out=model

Or, without any training, a network that was trained on ImageNet:
  deeprank export --pretrained=efficientnet_lite0 --out=model
"""

import argparse

from deeprank_jax.cli import arguments
from deeprank_jax.cli.output import Result
from deeprank_jax.inference import pretrained


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--workdir", metavar="DIR", type=arguments.PATH,
        help="folder of a run of `deeprank train`",
    )  # fmt: skip
    source.add_argument(
        "--pretrained", choices=sorted(pretrained.IMAGE_SIZES),
        help="network that is exported as it comes in its package",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="DIR", type=arguments.PATH, required=True,
        help="folder to write",
    )  # fmt: skip
    parser.add_argument(
        "--precision", type=float, default=0.95,
        help="share of the pairs called similar that are of one class, where half of "
        "all pairs are",
    )  # fmt: skip
    parser.add_argument(
        "--force_threshold", action="store_true",
        help="export the threshold even if it is not confirmed on other classes",
    )  # fmt: skip
    parser.add_argument(
        "--onnx_python", metavar="PYTHON", type=arguments.PATH,
        help="Python of an environment with requirements-onnx.txt, to write ONNX, too",
    )  # fmt: skip
    parser.add_argument(
        "--data_dir", metavar="DIR", type=arguments.PATH,
        help="folder, manifest or TFDS folder with the data of the run, if they have "
        "moved",
    )  # fmt: skip
    parser.add_argument(
        "--embed_prefix", metavar="NUM", type=arguments.at_least(1),
        help="count of an embedding's first numbers to keep, for smaller indexes; best "
        "after training with the loss matryoshka",
    )  # fmt: skip
    parser.add_argument(
        "--hub_card", action="store_true",
        help="begin the card with the YAML by which model hubs list a model: licence, "
        "tags, base model and metrics; nothing is uploaded",
    )  # fmt: skip
    parser.add_argument(
        "--license", metavar="NAME",
        help="licence of the model in that YAML, e.g. apache-2.0; unknown by default",
    )  # fmt: skip
    parser.set_defaults(usage_error=parser.error)


def check(options: argparse.Namespace) -> None:
    """Checks the combination of arguments, and the paths."""
    if options.license and not options.hub_card:
        options.usage_error("--license is for --hub_card")
    if options.pretrained and options.onnx_python:
        options.usage_error("--onnx_python exports a run, so it needs --workdir")
    if options.pretrained and options.data_dir:
        options.usage_error("--data_dir is of a run, so it needs --workdir")
    if options.pretrained and options.force_threshold:
        options.usage_error("--force_threshold is of a run, so it needs --workdir")
    if options.pretrained and options.embed_prefix:
        options.usage_error("--embed_prefix is of a run, so it needs --workdir")
    if options.workdir is not None:
        arguments.check_workdir(options.workdir)
    arguments.check_new_folder(options.out)


def run(options: argparse.Namespace) -> Result:
    """Exports the run, or the pretrained network."""
    pretrained.check_export_is_installed()
    from deeprank_jax import export
    from deeprank_jax.export import hub_card
    from deeprank_jax.inference import artifact

    hub_license = options.license or hub_card.NO_LICENSE if options.hub_card else None
    if options.pretrained:
        folder = export.export_pretrained(
            options.pretrained, options.out, hub_license=hub_license
        )
    else:
        folder = export.export_run(
            options.workdir,
            options.out,
            precision=options.precision,
            force_threshold=options.force_threshold,
            onnx_python=options.onnx_python,
            data_dir=options.data_dir,
            hub_license=hub_license,
            embed_prefix=options.embed_prefix,
        )
    agreement = artifact.read_artifact(folder).info["agreement"]
    card = folder / artifact.CARD
    lines = [f"Model:   {folder}", f"Card:    {card}"]
    lines += [
        f"{form} differs by {agreement[form]:.1e} at most."
        for form in ("stablehlo", "onnx")
        if form in agreement
    ]
    values = {"model": folder, "card": card, "agreement": agreement}
    return Result(values, "\n".join(lines))
