"""`python -m rollbook`: the program where its entry point is not on PATH."""

from rollbook.program import main

main()
