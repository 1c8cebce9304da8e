"""Fields of a request, each checked by kind. Pure.

Above: `agents`, `tools`, `environments`. Below: the error tree. A message begins with the path of the field, as in
`tools.0.name: …`; whoever knows what the fields belong to may put that before it (`within`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from server.errors import InvalidRequest, NotSupported

MOST_PAIRS, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512
"""Of metadata: pairs, characters of a key, characters of a value (reference: overview, limits)."""


@contextmanager
def within(noun: str) -> Iterator[None]:
    """Let the messages of errors raised inside begin with this noun: `name: …` becomes `agent.name: …`."""
    try:
        yield
    except InvalidRequest as error:
        error.args = (f"{noun}.{error}",)
        raise


def known(asked: Mapping[str, Any], names: Collection[str], path: str = "") -> None:
    """Raises InvalidRequest naming a field that is none of `names`."""
    for key in asked:
        if key not in names:
            raise InvalidRequest(f"{path}{key} is unknown. Known: {', '.join(names)}.")


def mapping(value: Any, path: str) -> Mapping[str, Any]:
    """The value, which must be an object. Raises InvalidRequest."""
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{path} must be an object.")
    return value


def listed(value: Any, path: str, most: int) -> Sequence[Any]:
    """The value, which must be a list of at most `most`; None is an empty one. Raises InvalidRequest."""
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > most:
        raise InvalidRequest(f"{path} must be a list of at most {most:,}.")
    return value


def text(value: Any, path: str, most: int, least: int = 0) -> str:
    """The value, which must be text of that many characters. Raises InvalidRequest."""
    if not isinstance(value, str) or not least <= len(value) <= most:
        bounds = f"at most {most:,}" if not least else f"{least} to {most:,}"
        raise InvalidRequest(f"{path} must be text of {bounds} characters.")
    return value


def flag(value: Any, path: str, default: bool) -> bool:
    """The value, which must be true or false; None is the default. Raises InvalidRequest."""
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidRequest(f"{path} must be true or false.")
    return value


def choice(value: Any, path: str, options: Sequence[str]) -> str:
    """The value, which must be one of the options. Raises InvalidRequest."""
    if not isinstance(value, str) or value not in options:
        raise InvalidRequest(f"{path} must be one of {', '.join(options)}.")
    return value


def metadata(value: Any) -> dict[str, str]:
    """Metadata as a whole; None is none. Raises InvalidRequest."""
    return merged({}, value, deletes=())


def merged(old: Mapping[str, str], patch: Any, deletes: Collection[str | None] = (None,)) -> dict[str, str]:
    """Metadata with a patch applied key by key; a value in `deletes` removes its key.

    Raises InvalidRequest naming everything that is wrong.
    """
    if patch is None:
        return dict(old)
    if not isinstance(patch, Mapping):
        raise InvalidRequest("metadata must be an object of texts.")
    gone = {key for key, item in patch.items() if (item is None or isinstance(item, str)) and item in deletes}
    new = {key: item for key, item in {**old, **patch}.items() if key not in gone}
    problems = [f"key {key!r:.80} must be text of 1 to {LONGEST_KEY} characters" for key in new if not _is_key(key)]
    problems += [
        f"the value of {key!r:.80} must be text of at most {LONGEST_VALUE} characters"
        for key, item in new.items()
        if not isinstance(item, str) or len(item) > LONGEST_VALUE
    ]
    if len(new) > MOST_PAIRS:
        problems.append(f"at most {MOST_PAIRS} pairs")
    if problems:
        raise InvalidRequest(f"metadata: {'; '.join(problems)}.")
    return new


def later(path: str, what: str) -> NotSupported:
    """The refusal of something understood that is not there yet."""
    return NotSupported(f"{path}: {what} not supported by this version of Skiff.")


def _is_key(key: Any) -> bool:
    return isinstance(key, str) and 0 < len(key) <= LONGEST_KEY
