"""``python -m benchmarks.peers``"""

from __future__ import annotations

import signal
import sys

from benchmarks.peers.run import main

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a peer at work ends with the harness
    sys.exit(main())
