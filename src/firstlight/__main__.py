"""`python -m firstlight`: the command line where the `firstlight` script is not on the path."""

from __future__ import annotations

from firstlight.cli import main

if __name__ == "__main__":
    main()
