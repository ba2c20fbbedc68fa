"""`python -m raigen` is the command line."""

import sys

from raigen.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
