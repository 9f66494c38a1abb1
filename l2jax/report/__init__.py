"""Results come in; one page of HTML goes out, which needs no network to be read."""

from l2jax.report.page import write_report

__all__ = ("write_report",)
