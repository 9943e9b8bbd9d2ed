"""The report of a run: one HTML page with metrics, curves, images and triplets."""

from deeprank_jax.errors import needs_extra

with needs_extra("search"):
    import cv2  # noqa: F401
    import jinja2  # noqa: F401
    import matplotlib  # noqa: F401

from deeprank_jax.report.page import ReportInputs, write_report
from deeprank_jax.report.reconstruction_panel import Reconstructions
from deeprank_jax.report.sampler_panel import DrawnTriplets

__all__ = ["DrawnTriplets", "Reconstructions", "ReportInputs", "write_report"]
