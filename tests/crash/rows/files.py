"""Uploads, and requests under a key of the client's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.crash.row import SERVE, Point
from tests.crash.site import Arguments, Site
from tests.crash.stories import files

_UPLOAD: Mapping[str, Any] = {"story": files.UPLOADED, "outcome": "sent again", **SERVE}
_KEYED: Mapping[str, Any] = {"story": files.KEYED, "outcome": "sent again", **SERVE}
_CATALOG = "server.store.catalog:CatalogStore"
_INCOMING = "server.files.blobs:Incoming"


def _into(table: str) -> Callable[[Arguments], bool]:
    return lambda arguments: arguments["table"] == table


FILES = [
    Point(
        "upload-half", "half of an upload is on the disk", Site(f"{_INCOMING}._flush", "after"), **_UPLOAD, typed=True
    ),
    Point("upload-unnamed", "all of it, under its temporary name", Site(f"{_INCOMING}._rename", "before"), **_UPLOAD),
    Point("upload-named", "under its own name, in no row", Site(f"{_INCOMING}._rename", "after"), **_UPLOAD),
    Point("upload-stored", "in its row, not answered", Site("server.store.files:FileTable.add", "after"), **_UPLOAD),
    Point(
        "agent-stored", "an agent is stored, not answered", Site(f"{_CATALOG}.add", "after", _into("agents")), **_KEYED
    ),
    Point(
        "environment-stored",
        "an environment is stored, not answered",
        Site(f"{_CATALOG}.add", "after", _into("environments")),
        **_KEYED,
    ),
    Point(
        "agent-changed",
        "an agent's next version is stored, not answered",
        Site(f"{_CATALOG}.change", "after"),
        **_KEYED,
    ),
    Point(
        "mount-added",
        "a mount is added, not answered",
        Site("server.store.resources:ResourceTable.add", "after"),
        files.ADDED,
        "sent again",
        **SERVE,
    ),
]
