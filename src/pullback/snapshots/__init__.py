"""Snapshots: nested values in one checked file, and a directory of them that a killed run goes on from."""

from .checkpointer import Checkpointer
from .files import load, save

__all__ = ["Checkpointer", "load", "save"]
