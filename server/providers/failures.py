"""What a provider's error answer means: one reading of (status, type, words, headers) as our error tree.

Above: the providers; `anthropic` also hands in the error events of its streams. Below: `server.errors`. It does not
know the SDK, and decides nothing about retries: docs/model-failures.md shows what follows from each.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Collection, Mapping
from typing import Any

from server.errors import (
    ModelContextTooLong,
    ModelError,
    ModelOverloaded,
    ModelRateLimited,
    ModelRefusedRequest,
    ModelUnavailable,
)

_SECRET = re.compile(r"sk-ant-[\w-]+|(?i:bearer)\s+[\w.~+/=-]+|(?i:x-api-key)\W+[\w-]+")
_TOO_LONG = ("prompt is too long", "input is too long", "exceed context limit", "exceeds the context window")
"""How the API and the clouds say that a conversation does not fit, beside status 413."""
_NO_CREDIT = ("credit balance is too low",)
_OVERLOADED = {503, 529}
_BROKEN = {408, 409}
_BROKEN_TYPES = {"api_error", "timeout_error", "gateway_timeout_error"}


def redact(text: str) -> str:
    """The text without anything that looks like a credential."""
    return _SECRET.sub("[redacted]", text)


def status_error(status: int, body: object, headers: Mapping[str, str], fallback: str) -> ModelError:
    """An error answer, or an error event inside a stream (status 200), as ours. `body` is its parsed JSON, if any."""
    detail = body.get("error") if isinstance(body, Mapping) else None
    detail = detail if isinstance(detail, Mapping) else {}
    kind, code = str(detail.get("type") or ""), _code(detail)
    text = str(detail.get("message") or fallback)
    where = f"{status} {kind}".strip() if status != 200 else kind or "an error"
    message = redact(f"The model provider answered {where}: {text}")
    if kind == "billing_error" or status == 402 or "spend_limit" in code or _says(text, _NO_CREDIT):
        return ModelRefusedRequest(message, error_type="billing_error")
    if status == 413 or kind == "request_too_large" or _says(text, _TOO_LONG):
        return ModelContextTooLong(message)
    passing = _passing(status, kind)
    if passing is None:
        return ModelRefusedRequest(message)
    error = passing(message, retry_after=retry_after(headers))
    error.retryable = headers.get("x-should-retry") != "false"
    return error


def _passing(status: int, kind: str) -> type[ModelError] | None:
    """The class of a failure that may be over soon; None for one that will not."""
    if status == 429 or kind == "rate_limit_error":
        return ModelRateLimited
    if status in _OVERLOADED or kind == "overloaded_error":
        return ModelOverloaded
    broken = status >= 500 or status in _BROKEN or (status == 200 and kind in _BROKEN_TYPES)
    return ModelUnavailable if broken else None


def _code(detail: Mapping[str, Any]) -> str:
    more = detail.get("details")
    return str(more.get("error_code") or "") if isinstance(more, Mapping) else ""


def _says(text: str, phrases: Collection[str]) -> bool:
    lowered = text.lower()
    return any(phrase in lowered for phrase in phrases)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the provider asks to wait, from `retry-after-ms` or `retry-after` (seconds or a date), or None.

    A date is read by the provider's own clock where the answer tells it: ours may be hours off.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            return max(0.0, float(value) * unit)
        except ValueError:
            moment = _moment(value)
            if moment is not None:
                sent = _moment(headers.get("date", ""))
                return max(0.0, moment - (time.time() if sent is None else sent))
    return None


def _moment(date: str) -> float | None:
    """An HTTP date as seconds of the epoch; None for anything else."""
    parsed = email.utils.parsedate_tz(date)
    return None if parsed is None else float(email.utils.mktime_tz(parsed))
