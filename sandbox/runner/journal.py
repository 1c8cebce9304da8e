"""Which operations this life of the runner has seen, so that none takes effect twice.

Above: `core`. Below: nothing. Memory only: a file could be forged by the agent, who has the same user id; a new life
of the runner is told apart by its incarnation instead. Pure bookkeeping: it starts, sends and reads nothing.
"""

from __future__ import annotations

from typing import Dict, Iterable, Optional

from sandbox.wire import Result

MAX_OPS = 1000
"""Unsettled operations. The server settles after each commit; a thousand means that it stopped doing so."""
MAX_BYTES = 64 << 20
"""Kept results, body bytes: three of the largest bodies, far more of ordinary ones (<= 100 KB)."""


class Journal:
    """Operations by id: running (no result yet) or done (result kept until settled)."""

    def __init__(self, max_ops: int = MAX_OPS, max_bytes: int = MAX_BYTES) -> None:
        self._ops: Dict[str, Optional[Result]] = {}
        self._bytes = 0
        self._max_ops, self._max_bytes = max_ops, max_bytes

    def __contains__(self, op_id: str) -> bool:
        return op_id in self._ops

    def result(self, op_id: str) -> Optional[Result]:
        """The kept result, or None while the operation runs (or is unknown)."""
        return self._ops.get(op_id)

    def states(self) -> Dict[str, str]:
        """For `hello`: "running" or "done" for each unsettled operation."""
        return {op_id: "running" if result is None else "done" for op_id, result in self._ops.items()}

    def full(self) -> str:
        """Why no new operation can be taken, or an empty string."""
        if len(self._ops) >= self._max_ops:
            return f"{len(self._ops)} operations are not settled; the runner keeps at most {self._max_ops}"
        if self._bytes >= self._max_bytes:
            return f"unsettled results hold {self._bytes} bytes; the runner keeps at most {self._max_bytes}"
        return ""

    def begin(self, op_id: str) -> None:
        self._ops[op_id] = None

    def finish(self, result: Result) -> None:
        self._ops[result.op_id] = result
        self._bytes += len(result.body)

    def settle(self, op_ids: Iterable[object]) -> None:
        """Forget these results. Ids that are unknown or still run are passed over: a running one must stay known."""
        for op_id in op_ids:
            result = self._ops.get(op_id) if isinstance(op_id, str) else None
            if result is not None:
                self._bytes -= len(result.body)
                del self._ops[result.op_id]
