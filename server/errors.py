"""The error tree of the server.

    SkiffError
    ├── InvalidRequest (400)      the request is wrong; the message says how to put it right
    │   ├── NotSupported (400)    understood, not implemented; names what was asked for
    │   └── Refused (400)         the object's state forbids it, where the wire says 400 and not 409
    │       └── AtBudget (400)    the session has used up its budget, and this would start work
    ├── Unauthenticated (401)     no credential, or a wrong one
    ├── NotFound (404)            no such object
    ├── Conflict (409)            the object's state forbids it
    │   └── TryAgain (409)        nothing is wrong with the request: a little later it may succeed
    ├── BodyTimeout (408)         a body that did not come
    ├── TooLarge (413)            a body over its bound
    ├── ModelError                the model could not answer; subclasses say whether trying again helps
    │   ├── ModelOverloaded       529, 503: retried with back-off
    │   ├── ModelRateLimited      429: retried, honouring retry-after
    │   ├── ModelUnavailable      other 5xx, 408, 409, no connection, a cut or silent stream: retried with back-off
    │   ├── ModelContextTooLong   more than the model can take in: not retried as it stands
    │   ├── ModelRefusedRequest   400, 401, 403, 404, billing: not retried
    │   └── DayCapReached         the operator's cap for the day: the model was not asked
    ├── NoRoom (507)              the disk is nearly full: nothing new is begun
    ├── StaleWriter               another process owns the engine now; this one must stop writing
    └── StoreError                the database cannot be used; says what to do
        └── StoreBlocked          it is locked, or its disk is full: nothing was written, and later it may be

Each leaf knows its wire type and HTTP status; the doors translate, nothing more. Sandbox errors have their own tree
(`sandbox.errors`); foreign errors are translated once, where they enter.
"""

from __future__ import annotations

from typing import TypeVar


class SkiffError(Exception):
    """Base of the tree. `str(error)` is written for the person or model who reads it."""

    wire_type = "api_error"
    status = 500
    code = ""
    """The wire's `details.error_code`, where it has one for this."""


E = TypeVar("E", bound=SkiffError)


def coded(error: E, code: str) -> E:
    """The error with the wire's code for it."""
    error.code = code
    return error


class InvalidRequest(SkiffError):
    wire_type = "invalid_request_error"
    status = 400


class NotSupported(InvalidRequest):
    """What is not implemented is refused by name, never ignored."""


class Refused(InvalidRequest):
    """Well formed, but not in the state that the object is in."""


class AtBudget(Refused):
    """The session has used up its budget: nothing that starts work is taken until that is raised or removed."""


class Unauthenticated(SkiffError):
    wire_type = "authentication_error"
    status = 401


class NotFound(SkiffError):
    wire_type = "not_found_error"
    status = 404


class Conflict(SkiffError):
    wire_type = "invalid_request_error"
    status = 409


class TryAgain(Conflict):
    """Nothing was done, and nothing is wrong with the request: asked again a little later, it may succeed."""


class BodyTimeout(SkiffError):
    """The client began a body and did not go on."""

    wire_type = "timeout_error"
    status = 408
    code = "request_body_timeout"


class TooLarge(SkiffError):
    wire_type = "request_too_large"
    status = 413


class NoRoom(SkiffError):
    """The disk of the data folder is nearly full. Whoever asks again soon gets the same answer."""

    status = 507


class StaleWriter(SkiffError):
    """A newer engine holds the data folder: nothing that this process still does may be written."""


class StoreError(SkiffError):
    """The database refused: of a newer schema, damaged, not ours."""


class StoreBlocked(StoreError):
    """Locked by another process, or out of room. Nothing was written; the same write may succeed a little later."""


class ModelError(SkiffError):
    """A model request failed. docs/model-failures.md says which cause is which, and what follows from it.

    `error_type` is the `session.error` type of the wire; `retryable` says whether the same request may succeed later;
    `retry_after` is what the provider asked for, in seconds, or None.
    """

    error_type = "model_request_failed_error"
    retryable = False

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelOverloaded(ModelError):
    """The provider has more to do than it can."""

    error_type = "model_overloaded_error"
    retryable = True


class ModelRateLimited(ModelError):
    """This account has asked for more than it may within some time."""

    error_type = "model_rate_limited_error"
    retryable = True


class ModelUnavailable(ModelError):
    """The provider broke down, could not be reached, or stopped in the middle of its answer."""

    retryable = True


class ModelContextTooLong(ModelError):
    """The conversation is longer than the model can take in, in tokens or in bytes: a shorter one would be answered."""


class ModelRefusedRequest(ModelError):
    """The request as it stands will never succeed: bad key, unknown model, malformed, no credit."""

    def __init__(self, message: str, *, error_type: str = "model_request_failed_error") -> None:
        super().__init__(message)
        self.error_type = error_type


class DayCapReached(ModelError):
    """The server's own cap for the day: the model was not asked, and will be again tomorrow or under a higher cap."""

    error_type = "billing_error"
    ending = "day_cap_reached"
    """Our own word for how the turn ended: the wire's stop reasons have none."""
