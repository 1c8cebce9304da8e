"""A place in the program where a process dies: one function, before or after it does its work.

Above: `points`, which names the places, and `armed`, which arms one of them in a process. Below: the product's own
boundaries, wrapped by name here and nowhere in the product. A place that is never reached kills nothing: the test
that waits for the death fails then.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

Arguments = Mapping[str, Any]
"""What the function was called with, by the names of its parameters."""
REACHED = "crash: reached"


@dataclass(frozen=True)
class Site:
    """Where to die.

    target   `module:Class.method` or `module:function`; of a function that others import by name, where they have it
    when     before its work, after it (its result is there, nobody has it yet), or at an item that it yields
    of       which calls count, by their arguments; of `item`, by the item, as `item`
    nth      the how manieth of those, from 1
    """

    target: str
    when: Literal["before", "after", "item"]
    of: Callable[[Arguments], bool] = lambda arguments: True
    nth: int = 1

    def arm(self) -> None:
        """Wrap the function in this process."""
        module_name, _, path = self.target.partition(":")
        owner: Any = importlib.import_module(module_name)
        *outer, name = path.split(".")
        for part in outer:
            owner = getattr(owner, part)
        setattr(owner, name, self._wrapped(getattr(owner, name)))

    def _wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        signature, counter = inspect.signature(function), _Counter(self.nth)

        def die_if(moment: str, args: Any, kwargs: Any) -> None:
            if moment == self.when and self.of(signature.bind(*args, **kwargs).arguments):
                counter.die_at_last()

        async def waits(*args: Any, **kwargs: Any) -> Any:
            die_if("before", args, kwargs)
            result = await function(*args, **kwargs)
            die_if("after", args, kwargs)
            return result

        async def yields(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            async with aclosing(function(*args, **kwargs)) as items:
                async for item in items:
                    if self.of({"item": item}):
                        counter.die_at_last()
                    yield item

        def plain(*args: Any, **kwargs: Any) -> Any:
            die_if("before", args, kwargs)
            result = function(*args, **kwargs)
            die_if("after", args, kwargs)
            return result

        kind = yields if self.when == "item" else waits if inspect.iscoroutinefunction(function) else plain
        return functools.wraps(function)(kind)


class _Counter:
    def __init__(self, left: int) -> None:
        self._left = left

    def die_at_last(self) -> None:
        """Count; at the last one end this process, with everything that it is about to do."""
        self._left -= 1
        if not self._left:
            os.write(2, f"{REACHED}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
            sys.exit("unreachable: SIGKILL came back")
