"""``python -m rockfill``: the command line."""

from __future__ import annotations

import sys

from rockfill.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
