"""`python -m server`: the `skiff` command."""

from server.cli import main

main()
