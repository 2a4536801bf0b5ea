"""A worker's own program: `python -P -m appserver.process.child`, started by a master."""

import os
import sys

from appserver.process.handover import take
from appserver.process.worker import serve_for_master

if __name__ == "__main__":
    sys.exit(serve_for_master(take(os.environ)))
