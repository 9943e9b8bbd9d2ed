"""Losses and miners: pure functions of arrays, by the names that a config uses."""

from collections.abc import Mapping
from typing import Any

from deeprank_jax.errors import ConfigError
from deeprank_jax.losses.base import (
    Loss,
    LossFn,
    RelevanceFn,
    RemembersClasses,
    update_memory,
)
from deeprank_jax.losses.batch_mining import (
    Anchors,
    Images,
    Mined,
    Miner,
    gather_images,
)
from deeprank_jax.losses.center import Center
from deeprank_jax.losses.circle import Circle
from deeprank_jax.losses.contrastive import Contrastive, PairContrastive
from deeprank_jax.losses.cross_entropy import CrossEntropy
from deeprank_jax.losses.distillation import Distillation
from deeprank_jax.losses.each_network import EachNetwork
from deeprank_jax.losses.fast_ap import FastAP
from deeprank_jax.losses.hashing import Hashing
from deeprank_jax.losses.instance_discrimination import InstanceDiscrimination
from deeprank_jax.losses.margin_softmax import ArcFace, CosFace, NormFace
from deeprank_jax.losses.matryoshka import Matryoshka
from deeprank_jax.losses.miners import BatchHard, DistanceWeighted, Sampled, SemiHard
from deeprank_jax.losses.multi_similarity import MultiSimilarity
from deeprank_jax.losses.nt_xent import NTXent
from deeprank_jax.losses.ortho_hash import OrthoHash
from deeprank_jax.losses.proxy_anchor import ProxyAnchor
from deeprank_jax.losses.rank_n_contrast import RankNContrast
from deeprank_jax.losses.ranking import TripletHinge, TripletSoftMargin
from deeprank_jax.losses.reconstruction import Reconstruction
from deeprank_jax.losses.supcon import SupCon
from deeprank_jax.losses.weighted_sum import WeightedSum
from deeprank_jax.registry import Registry

__all__ = [
    "LOSSES",
    "MINERS",
    "Anchors",
    "ArcFace",
    "BatchHard",
    "Center",
    "Circle",
    "Contrastive",
    "CosFace",
    "CrossEntropy",
    "DistanceWeighted",
    "Distillation",
    "EachNetwork",
    "FastAP",
    "Hashing",
    "Images",
    "InstanceDiscrimination",
    "Loss",
    "LossFn",
    "Matryoshka",
    "Mined",
    "Miner",
    "MultiSimilarity",
    "NTXent",
    "NormFace",
    "OrthoHash",
    "PairContrastive",
    "ProxyAnchor",
    "RankNContrast",
    "Reconstruction",
    "RelevanceFn",
    "RemembersClasses",
    "Sampled",
    "SemiHard",
    "SupCon",
    "TripletHinge",
    "TripletSoftMargin",
    "WeightedSum",
    "create_loss",
    "gather_images",
    "learns_codes",
    "memory_size",
    "register_loss",
    "register_miner",
    "takes_teacher",
    "update_memory",
]

LOSSES: Registry[Loss] = Registry(
    "config.loss",
    {
        "triplet_hinge": TripletHinge,
        "triplet_soft_margin": TripletSoftMargin,
        "contrastive": Contrastive,
        "multi_similarity": MultiSimilarity,
        "supcon": SupCon,
        "rank_n_contrast": RankNContrast,
        "circle": Circle,
        "fast_ap": FastAP,
        "nt_xent": NTXent,
        "instance_discrimination": InstanceDiscrimination,
        "pair_contrastive": PairContrastive,
        "reconstruction": Reconstruction,
        "distillation": Distillation,
        "cross_entropy": CrossEntropy,
        "center": Center,
        "normface": NormFace,
        "cosface": CosFace,
        "arcface": ArcFace,
        "proxy_anchor": ProxyAnchor,
        "ortho_hash": OrthoHash,
        "weighted_sum": WeightedSum,
        "matryoshka": Matryoshka,
        "hashing": Hashing,
    },
    methods=("__call__", "describe"),
    attributes=("outputs",),
)
MINERS: Registry[Miner] = Registry(
    "config.loss.miner",
    {
        "sampled": Sampled,
        "semi_hard": SemiHard,
        "distance_weighted": DistanceWeighted,
        "batch_hard": BatchHard,
    },
    methods=("__call__",),
    attributes=("mines_positives", "warmup"),
)
register_loss = LOSSES.register
register_miner = MINERS.register


def create_loss(section: Mapping[str, Any], **context: Any) -> Loss:
    """Creates the loss of `config.loss`, with its miner.

    Args:
      section: Name and options of the loss; `miner` holds those of the miner.
      **context: `relevance_fn`, `min_relevance_gap`, `axis_name` and sizes of a group;
        see `Loss`.

    Raises:
      ConfigError: No such loss or miner exists, or an option does not fit.
    """
    options = dict(section)
    LOSSES.check(options, tuple(context))
    if isinstance(options.get("terms"), Mapping):
        options["terms"] = {
            name: _create_term(name, term, context)
            for name, term in options["terms"].items()
        }
        context = {}
    takes_miner = "miner" in LOSSES.options(options.get("name", ""))
    if takes_miner and options.get("miner") is not None:
        context["miner"] = MINERS.create(options.pop("miner"))
    return LOSSES.create(options, **context)


def _create_term(
    name: str, options: Mapping[str, Any], context: Mapping[str, Any]
) -> tuple[float, Loss]:
    """Returns weight and loss of a term of a sum."""
    if not isinstance(options, Mapping):
        raise ConfigError(
            f"config.loss.terms.{name}={options!r} needs options, e.g. "
            "dict(weight=0.4), or dict() for the defaults."
        )
    section = {"name": name, **options}
    weight: Any = section.pop("weight", 1.0)
    try:
        return weight, create_loss(section, **context)
    except ConfigError as error:
        message = str(error).replace("config.loss", f"config.loss.terms.{name}")
        raise ConfigError(message) from error


def memory_size(section: Mapping[str, Any]) -> int:
    """Returns the number of earlier embeddings that the loss of a section compares."""
    terms = section.get("terms") or {}
    sizes = [memory_size(term) for term in terms.values()]
    return max([section.get("memory_size", 0), *sizes])


def takes_teacher(section: Mapping[str, Any]) -> bool:
    """Returns whether the loss of a section compares with a teacher's embeddings."""
    terms = section.get("terms") or {}
    name = section.get("name", "")
    return (name in LOSSES and getattr(LOSSES[name], "takes_teacher", False)) or any(
        takes_teacher({"name": name, **term}) for name, term in terms.items()
    )


def learns_codes(section: Mapping[str, Any]) -> bool:
    """Returns whether the loss of a section learns codes, signs of embeddings."""
    terms = section.get("terms") or {}
    name = section.get("name", "")
    loss = LOSSES[name] if name in LOSSES else None
    return (
        getattr(loss, "learns_codes", False)
        or getattr(loss, "outputs", "") == "code_cosines"
        or any(learns_codes({"name": name, **term}) for name, term in terms.items())
    )
