"""Begin to write to a stream, and hear at once when nobody reads it any more.

Above: `docker/attach`, `local/process`, the two `channel.Transport`s. Below: asyncio, which drops what it cannot write
and tells only who asks.
"""

from __future__ import annotations

import asyncio


def send(writer: asyncio.StreamWriter, data: bytes) -> bool:
    """Write behind what was written before. Whether the kernel took all of it. Raises ConnectionError when the other
    side is gone."""
    writer.write(data)
    if writer.is_closing():
        raise ConnectionResetError("the other side reads no more")
    return not writer.transport.get_write_buffer_size()
