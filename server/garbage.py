"""When Python looks for garbage that counting references does not find.

Above: the command line and `app`. Python's own defaults suit scripts: a look after every 700 new objects, which cost
the imports of a start a tenth of their time (they make half a million objects, and none of them is garbage), and each
round of tools a few looks.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG = 20_000
"""New objects between looks at the young ones: a look takes 2 ms then, once in several rounds, and what waits for it is
4 MB at the most."""


def look_seldom() -> None:
    """From now on. Call it before the imports."""
    gc.set_threshold(YOUNG, 10, 10)


@contextmanager
def kept() -> Iterator[None]:
    """Around the longest import, of the model's SDK. What there is afterwards lives as long as the process, and is not
    looked at again: a full look at what the imports made stopped every session for 150 to 300 ms, about once in a
    hundred rounds of tools. It is not looked at meanwhile either: even seldom looks were a tenth of the import, as each
    finds more to look at. What sessions leave behind in that second or two is kept with it."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
