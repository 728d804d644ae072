"""`python -m deburr` is `deburr`, for environments whose scripts are not on the path."""

import sys

from deburr.cli import main

if __name__ == "__main__":
    sys.exit(main())
