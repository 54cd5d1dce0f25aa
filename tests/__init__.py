"""The tests: a folder per room, and beside them what several rooms' tests share.

One thread per process, set before torch, FAISS and numba load. Tests run several at a time, and
libraries that start a thread per core wait for each other. Workers that tests start inherit it.
"""

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
