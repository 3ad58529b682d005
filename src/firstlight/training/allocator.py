"""Keep freed memory in the process: on Linux, glibc gives blocks above 32 MB back to the kernel when they are freed.

A training step on a CPU allocates and frees the same large blocks again and again, and the kernel clears each page
anew: on two cores that was a tenth of the step (docs/log.md). `mallopt(3)` switches this off; the peak stays.
"""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Serve large blocks from the heap and do not shrink it; true where the C library can (glibc)."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, LARGEST_INT))
