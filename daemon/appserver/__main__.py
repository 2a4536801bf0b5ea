"""`python -m appserver` does what `appserver` does."""

import sys

from appserver.cli import main

if __name__ == "__main__":
    sys.exit(main())
