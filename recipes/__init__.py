"""Commands (one file each), and the rooms that they share; docs/architecture.md draws them.

Threads of PyTorch on a processor wait for each other by spinning, for milliseconds unless told otherwise. Beside other
work that takes the core from the thread that is waited for. The limit is read when the library is loaded, so it is set
here, before torch is imported, to one that gains most of it and costs little on a quiet machine (RESULTS.md, section
28).
"""

import os

if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "10000"
