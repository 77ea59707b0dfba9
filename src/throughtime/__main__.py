"""`python -m throughtime`: the command line."""

from throughtime.cli.main import main

main()
