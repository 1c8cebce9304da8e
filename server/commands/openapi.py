"""`skiff openapi`: the API that `skiff serve` speaks, as an OpenAPI document on standard output."""

from __future__ import annotations

import json
import sys

from server.doors.rest.app import endpoints
from server.doors.rest.openapi import document


def show() -> None:
    json.dump(document(endpoints()), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
