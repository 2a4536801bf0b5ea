"""An application whose import takes longer than anybody waits."""

import logging
import time

logging.getLogger("shop").warning("importing")
time.sleep(600)
