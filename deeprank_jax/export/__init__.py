"""Export of a trained run as one self-contained folder."""

from deeprank_jax.export.run import ExportError, export_run

__all__ = ["ExportError", "export_run"]
