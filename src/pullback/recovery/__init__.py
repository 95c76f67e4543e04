"""Training runs that survive: a guard that goes back to a good state, changes something, and goes on."""

from .events import Event
from .guard import Guard

__all__ = ["Event", "Guard"]
