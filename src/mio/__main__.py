"""`python -m mio`."""

import sys

from mio.cli import main

if __name__ == "__main__":
    sys.exit(main())
