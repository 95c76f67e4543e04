"""Checkup: the checklist for a training that does not learn, gone through on a real step or script."""

from .doctor import doctor
from .report import Finding, Report

__all__ = ["Finding", "Report", "doctor"]
