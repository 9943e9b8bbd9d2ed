"""From a trained run to one folder that needs nothing else."""

from deeprank_jax.export.run import ExportError, export_run

__all__ = ["ExportError", "export_run"]
