"""Arguments that several tools have."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

SessionId = Annotated[str, Field(description="The session, as create_session named it", min_length=1, max_length=100)]
WaitSeconds = Annotated[
    float,
    Field(
        ge=0,
        le=240,
        description="Seconds to wait for the result. After that the answer says `running`; the work goes on. Hosts with"
        " background tasks get a task instead.",
    ),
]
"""At most 240: the tightest hosts cut a call off after four or five minutes, whatever happens. 45 by default: the
tightest of all after 60 s."""
RequestKey = Annotated[
    str | None,
    Field(
        max_length=200,
        description="A word of your own choice: if you have to repeat this call, the same key makes sure that it takes"
        " effect once",
    ),
]
