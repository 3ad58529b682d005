"""Where the command line starts: Ctrl-C has its sentence from the first moment on, while modules are still imported."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The `firstlight` script, and `python -m firstlight` where the script is not on the path."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of many processes, each would warn of sockets
    try:
        from firstlight.cli import main as run

        run()
    except KeyboardInterrupt:
        print("interrupted: nothing half-written was left behind.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
