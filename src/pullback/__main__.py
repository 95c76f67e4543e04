"""`python -m pullback`: the command `pullback`, also where no script of it is installed."""

from .cli import main

main()
