"""A multipart body, taken apart while it comes: one file, of any size, and a few small fields beside it.

Above: `files`. Below: the parser of python-multipart, fed with what arrives. The file's bytes go where the caller says,
portion by portion; the fields are kept. Everything that a sender decides is bounded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from email.message import Message
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from server.errors import InvalidRequest

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MOST_PARTS = 10
"""The API knows two."""
MOST_HEADERS = 8
MAX_HEADER = 4_096
"""Bytes of one header line of a part: a file's name of a thousand characters, percent-encoded, and room."""
MAX_FIELD = 64 << 10
"""Bytes of what is no file."""

Take = Callable[[bytes], Awaitable[None]]


@dataclass
class Part:
    """A part, as its headers say; `content` is what a field holds, and stays empty for the file."""

    headers: dict[str, str] = field(default_factory=dict)
    content: bytearray = field(default_factory=bytearray)
    name: str = ""
    filename: str | None = None

    def understand(self) -> None:
        """Read name and filename. Raises InvalidRequest for a part without a name."""
        said = Message()
        said["content-disposition"] = self.headers.get("content-disposition", "")
        name = said.get_param("name", header="content-disposition")
        if said.get_content_disposition() != "form-data" or not isinstance(name, str):
            raise InvalidRequest("A part of the form has no name: Content-Disposition: form-data; name=... is missing.")
        self.name, self.filename = name, said.get_filename()


async def read(content_type: str, pieces: AsyncIterator[bytes], take: Take) -> tuple[Part, dict[str, str]]:
    """The part called `file`, whose bytes went to `take`, and the other fields by name.

    Raises InvalidRequest when the body is no such form, and whatever `take` raises.
    """
    form = _Form(_boundary(content_type))
    async for piece in pieces:
        for portion in form.feed(piece):
            await take(portion)
    return form.result()


def _boundary(content_type: str) -> str:
    kind = Message()
    kind["content-type"] = content_type
    boundary = kind.get_boundary()
    if kind.get_content_type() != "multipart/form-data" or not boundary:
        raise InvalidRequest("Content-Type must be multipart/form-data with a boundary; the part `file` is the file.")
    return boundary


class _Form:
    """What has been read so far."""

    def __init__(self, boundary: str) -> None:
        self._parts: list[Part] = []
        self._header = (bytearray(), bytearray())
        self._portions: list[bytes] = []
        self._ended = False
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._said(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._said(1, data[start:end]),
            "on_header_end": self._keep_header,
            "on_headers_finished": self._understand,
            "on_part_data": lambda data, start, end: self._content(data[start:end]),
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(
                boundary,
                callbacks,
                max_header_count=MOST_HEADERS,
                max_header_size=MAX_HEADER,
            )
        except (FormParserError, UnicodeEncodeError):
            raise InvalidRequest("The boundary of the multipart body cannot be used.") from None

    def feed(self, piece: bytes) -> list[bytes]:
        """The bytes of the file that this piece holds. Raises InvalidRequest."""
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise InvalidRequest(f"The multipart body cannot be read: {error}.") from None
        portions, self._portions = self._portions, []
        return portions

    def result(self) -> tuple[Part, dict[str, str]]:
        """See `read`."""
        if not self._ended:
            raise InvalidRequest("The multipart body ends before its last boundary.")
        files = [part for part in self._parts if part.name == "file"]
        if len(files) != 1:
            raise InvalidRequest("The form must have exactly one part `file`.")
        fields: dict[str, str] = {}
        for part in self._parts:
            if part is not files[0]:
                if part.name in fields:
                    raise InvalidRequest(f"{part.name}: given more than once.")
                fields[part.name] = part.content.decode("utf-8", "replace")
        return files[0], fields

    def _begin(self) -> None:
        if len(self._parts) == MOST_PARTS:
            raise InvalidRequest(f"The form has more than {MOST_PARTS} parts.")
        self._parts.append(Part())

    def _said(self, which: int, data: bytes) -> None:
        self._header[which].extend(data)  # which may be part of a character: the body comes in any pieces

    def _keep_header(self) -> None:
        name, value = (data.decode("utf-8", "replace") for data in self._header)
        self._parts[-1].headers[name.lower()] = value
        self._header = (bytearray(), bytearray())

    def _understand(self) -> None:
        self._parts[-1].understand()

    def _content(self, data: bytes) -> None:
        part = self._parts[-1]
        if part.name == "file":
            self._portions.append(data)
            return
        part.content += data
        if len(part.content) > MAX_FIELD:
            raise InvalidRequest(f"{part.name[:80]}: a field may have at most {MAX_FIELD:,} bytes.")

    def _end(self) -> None:
        self._ended = True
