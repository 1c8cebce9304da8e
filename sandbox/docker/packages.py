"""An environment's packages: the script that installs them, and the name of the image that has them. Pure.

Above: `images`. Below: `sandbox.packages` (the check) and `sandbox/image/packages.sh`, whose functions the script
calls. It knows no engine.
"""

from __future__ import annotations

import hashlib
import json
import shlex

from sandbox.packages import check
from sandbox.protocol import Packages

REPOSITORY = "skiff-packages"


def script(packages: Packages, functions: str) -> str:
    """The shell script that installs: `functions` (packages.sh), then one call a manager, in alphabetical order."""
    check(packages)
    calls = [shlex.join([f"{manager}_packages", *names]) for manager, names in sorted(packages) if names]
    return "\n".join([functions, *calls, "clean_up", ""])


def tag(base: str, packages: Packages, functions: str) -> str:
    """The tag of the image with these packages on top of the image of that id.

    The runner is not part of it: it is put on top of this, so that a new runner installs nothing again.
    """
    said = json.dumps([base, sorted(packages), functions])
    return f"{REPOSITORY}:{hashlib.sha256(said.encode()).hexdigest()[:16]}"


def in_words(packages: Packages) -> str:
    """For people, as "apt: tree; pip: numpy==2.4.6"."""
    return "; ".join(f"{manager}: {' '.join(names)}" for manager, names in sorted(packages) if names)
