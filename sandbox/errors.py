"""What can go wrong between the server and a sandbox.

    SandboxError
    ├── SandboxUnavailable        the backend cannot make or reach any sandbox (engine down, image missing)
    │   └── ImageMissing          the image is not there; says which command builds it
    ├── SandboxGone               this sandbox no longer exists, or died; its running operations are unknowable
    │   └── WorkspaceGone         and its files are gone too: there is nothing to come back to
    ├── SpecRefused               the specification asks for what this backend does not promise
    └── ProtocolError             a frame that the protocol does not allow; the sender is treated as hostile

A command that fails is not an error here: it is a `Result` whose meta carries the exit code.
"""

from __future__ import annotations


class SandboxError(Exception):
    """Base of every error that a sandbox backend raises."""


class SandboxUnavailable(SandboxError):
    """No sandbox can be had now. The message says what the operator can do."""


class ImageMissing(SandboxUnavailable):
    """The sandbox image has not been built. The message names the command that builds it."""


class SandboxGone(SandboxError):
    """The sandbox died or was removed while (or before) it was used."""


class WorkspaceGone(SandboxGone):
    """The workspace itself is no longer there. Nothing else may be taken to mean that the files are lost."""


class SpecRefused(SandboxError):
    """The backend cannot promise what the specification asks for, and so refuses it by name."""


class ProtocolError(SandboxError):
    """The peer broke the frame protocol."""
