"""The ready-made images: environments that many need, by name, as lists of packages on top of the toolbox.

Above: whoever lets a caller choose an image (`READY_MADE`), `sandbox.docker.images` (`RECIPES`). Pure, and free of
any container engine. A list and not a Dockerfile: what can be said here is what an environment's own `packages` can
say, so both are built, cached and collected by the same few lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sandbox.protocol import Packages


@dataclass(frozen=True)
class ReadyMade:
    """One image: what it is for, in a sentence, and what is put on top of the toolbox."""

    says: str
    packages: Packages


RECIPES: Mapping[str, ReadyMade] = {
    "standard": ReadyMade(
        "Python with pip and venv, Node with npm, git, ripgrep, curl, jq, and a C and C++ compiler with make.",
        (
            ("apt", ("build-essential", "file", "less", "patch", "python3-pip", "python3-venv", "unzip", "zip")),
            ("npm", ("npm@10.9.9",)),
        ),
    ),
    "data": ReadyMade(
        "Python for data: numpy, pandas, matplotlib, openpyxl for spreadsheets and pypdf for PDF.",
        (("pip", ("numpy==2.4.6", "pandas==3.1.1", "matplotlib==3.11.2", "openpyxl==3.1.5", "pypdf==7.1.0")),),
    ),
    "databases": ReadyMade(
        "Command-line clients of PostgreSQL (psql), MySQL and MariaDB (mysql), Redis (redis-cli) and SQLite (sqlite3).",
        (("apt", ("default-mysql-client", "postgresql-client", "redis-tools", "sqlite3")),),
    ),
    "ci": ReadyMade(
        "What a build needs: gcc, g++, make, cmake, and the linters shellcheck, ruff and yamllint.",
        (
            ("apt", ("build-essential", "cmake", "shellcheck")),
            ("pip", ("ruff==0.17.6", "yamllint==1.38.0")),
        ),
    ),
}
"""The toolbox itself has Python, Node, git, ripgrep, curl and jq: so have all of these. Python packages are pinned;
those of apt are the distribution's, which moves with its security fixes only."""

READY_MADE: Mapping[str, str] = {name: recipe.says for name, recipe in RECIPES.items()}
"""Name -> a sentence. The names are always on the list of images that a caller may choose."""
