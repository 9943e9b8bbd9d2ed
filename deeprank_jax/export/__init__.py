"""Export of a run, or of a pretrained network, as one self-contained folder."""

from deeprank_jax.export.pretrained import export_pretrained, model_folder
from deeprank_jax.export.run import ExportError, export_run

__all__ = ["ExportError", "export_pretrained", "export_run", "model_folder"]
