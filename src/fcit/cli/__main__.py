"""`python -m fcit.cli`: the command line without the installed script."""

from fcit.cli import main

main()
