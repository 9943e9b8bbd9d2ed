"""The report: one HTML page that shows what a run has learned."""

from deeprank_jax.report.page import ReportInputs, write_report
from deeprank_jax.report.sampler_panel import DrawnTriplets

__all__ = ["DrawnTriplets", "ReportInputs", "write_report"]
