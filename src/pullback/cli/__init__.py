"""The command `pullback`: parsing, printing and exit codes; everything else is done by the other rooms."""

from .main import app, main

__all__ = ["app", "main"]
