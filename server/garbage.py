"""When Python looks for garbage that counting references does not find.

Above: the command line and `app`. Python's own defaults suit scripts: a look after every 700 new objects, which cost
the imports of a start a tenth of their time (they make half a million objects, and none of them is garbage), and each
round of tools a few looks.
"""

from __future__ import annotations

import gc

YOUNG = 20_000
"""New objects between looks at the young ones: a look takes 2 ms then, once in several rounds, and what waits for it is
4 MB at the most."""


def look_seldom() -> None:
    """From now on. Call it before the imports."""
    gc.set_threshold(YOUNG, 10, 10)


def keep_what_is() -> None:
    """What there is now lives as long as the process: it is not looked at again. A full look at what the imports made
    stopped every session for 150 to 300 ms, about once in a hundred rounds of tools."""
    gc.freeze()
