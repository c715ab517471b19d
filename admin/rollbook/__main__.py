"""`python -m rollbook`: the program where its entry point is not on PATH."""

from rollbook.cli import main

main()
