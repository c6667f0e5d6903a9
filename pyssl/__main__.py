"""``python -m pyssl`` is the command line ``pyssl``."""

import sys

from pyssl.cli import main

if __name__ == "__main__":
    sys.exit(main())
