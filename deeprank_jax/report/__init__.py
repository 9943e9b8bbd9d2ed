"""The report: one HTML page that shows what a run has learned."""

from deeprank_jax.report.drawn import DrawnTriplets
from deeprank_jax.report.page import ReportInputs, write_report

__all__ = ["DrawnTriplets", "ReportInputs", "write_report"]
