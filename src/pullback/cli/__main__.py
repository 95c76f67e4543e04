"""`python -m pullback.cli`: the command without an installed script."""

from .main import main

main()
