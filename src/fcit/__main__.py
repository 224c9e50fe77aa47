"""`python -m fcit`: the command line, which Ctrl-C ends with one line from its first moment."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from fcit.cli import main

        main()
    except KeyboardInterrupt:
        print("fcit: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
