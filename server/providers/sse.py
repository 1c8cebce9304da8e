"""Server-sent events, as far as a stream of JSON needs them: bytes in, the parsed data of whole events out. Pure.

Above: `anthropic`. The names of events are passed over, because each is also the `type` inside its data; comments,
ids and retry hints have no meaning here (WHATWG HTML, 9.2.6).
"""

from __future__ import annotations

import json
from typing import Any


class Decoder:
    """Feed it the portions of a stream; it gives what each has completed. A last event without its blank line is cut
    off, and not given."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, portion: bytes) -> list[Any]:
        """The data of every event that ends in this portion. Raises ValueError for data that is no JSON."""
        lines = (self._rest + portion).split(b"\n")
        self._rest = lines.pop()
        found = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:])
            elif self._data and line in (b"", b"\r"):
                found.append(json.loads(b"\n".join(self._data)))
                self._data.clear()
        return found
