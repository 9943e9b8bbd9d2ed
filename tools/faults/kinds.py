"""Kinds of faults by name."""

from collections.abc import Callable, Mapping

from tools.faults.checkpoints import Checkpoints
from tools.faults.embedding_table import EmbeddingTable, EmbedParts
from tools.faults.evaluation_triplets import EvaluationTriplets
from tools.faults.features import (
    CachedFeatures,
    StoredOasis,
    StoredVectors,
    TripletFiles,
)
from tools.faults.hostile_files import HostileFiles
from tools.faults.kills import Kills
from tools.faults.limits import FewDescriptors, FullDisk, LittleMemory
from tools.faults.model_folder import ModelFolder
from tools.faults.run_files import (
    BadImageList,
    ComparedRun,
    Metrics,
    PlannedRun,
    StoredLeakage,
    Whitening,
)
from tools.faults.signals import Signals
from tools.faults.tfds_dataset import PreparedTfds
from tools.faults.totals import Totals
from tools.faults.trial import Kind
from tools.faults.two_at_once import TwoAtOnce
from tools.faults.two_processes import TwoProcesses
from tools.faults.vector_index import StoredGraph, StoredIndex

# Kinds that start no process: a few trials take seconds.
QUICK: Mapping[str, Callable[[], Kind]] = {
    "checkpoints": Checkpoints,
    "totals": Totals,
    "evaluation_triplets": EvaluationTriplets,
    "embedding_table": EmbeddingTable,
    "embed_parts": EmbedParts,
    "index": StoredIndex,
    "graph": StoredGraph,
    "model": ModelFolder,
    "whitening": Whitening,
    "compared_run": ComparedRun,
    "planned_run": PlannedRun,
    "metrics": Metrics,
    "leakage": StoredLeakage,
    "bad_images": BadImageList,
    "tfds": PreparedTfds,
    "features": CachedFeatures,
    "vectors": StoredVectors,
    "oasis": StoredOasis,
    "triplet_files": TripletFiles,
    "hostile_files": HostileFiles,
}
KINDS: Mapping[str, Callable[[], Kind]] = {
    **QUICK,
    "kills": Kills,
    "signals": Signals,
    "two_at_once": TwoAtOnce,
    "two_processes": TwoProcesses,
    "full_disk": FullDisk,
    "few_descriptors": FewDescriptors,
    "little_memory": LittleMemory,
}
