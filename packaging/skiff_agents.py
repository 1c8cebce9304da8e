"""The installed name of Skiff.

The program's modules are called `server` and `sandbox`. An installation keeps them below this package and shows them
to its own process only, so that nobody's site-packages gains modules of such common names; a checkout has them at its
top, where editors and tests expect them.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Run the `skiff` command."""
    here = Path(__file__).resolve().parent
    if (here / "server").is_dir():  # installed; a checkout is on the path already
        sys.path.insert(0, str(here))
    from server.cli import main as run

    run()


if __name__ == "__main__":
    main()
