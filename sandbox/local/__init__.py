"""The embedded backend: sandboxes made by bubblewrap, for Linux hosts without a container engine.

`backend` makes, finds and removes; `sandbox` is one live sandbox; `process` starts and ends its processes;
`command` (pure) is what bubblewrap is told; `limits` are cgroups and rlimits; `workspace` the folders; `host` what
this machine offers. Less is promised than with an engine (see `LocalBackend.promises`), the contract is the same.
"""

from sandbox.local.backend import LocalBackend

__all__ = ["LocalBackend"]
