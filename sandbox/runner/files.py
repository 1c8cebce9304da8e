"""The file and search operations of the runner: one pure-looking door, `perform`.

Above: the runner's loop, which calls it in a short-lived child and bounds its time by killing that child. Below: one
module an operation. It knows neither frames nor processes, and keeps nothing between calls.
"""

from __future__ import annotations

from typing import Any, Callable, Dict

from sandbox.runner import editing, outputs, reading, search
from sandbox.runner import workspace as inside
from sandbox.runner.replies import Refused, Reply, explain, failed
from sandbox.runner.usage import usage
from sandbox.wire import Edit, Fetch, Glob, Grep, List_, Outputs, Put, Read, Remove, Usage, Write

_TYPES = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "Optional[str]": (str, type(None)),
    "Optional[List[int]]": (list, type(None)),
}
"""The annotations that occur in the operations of `wire`, as classes."""


def perform(operation: Any, body: bytes, workspace: str = "/workspace") -> Reply:
    """Do a file or search operation of `wire` and return (ok, body, meta) for its `wire.Result`.

    `body` is the content for Write and Put. Whatever the model or the file system can cause is (False, sentence, {}).
    A pathological regular expression can take for ever: the caller bounds the time. Raises TypeError for Bash.
    """
    try:
        _check(operation)
        return _dispatch(operation, body, workspace)
    except Refused as error:
        return failed(str(error))
    except OSError as error:
        named = error.filename if isinstance(error.filename, str) and error.filename.startswith("/") else ""
        return failed(explain(error, named or _subject(operation)))
    except UnicodeEncodeError:
        return failed("The path holds half a surrogate pair, which no file name can; write the whole character.")
    except ValueError as error:
        return failed(f"{_subject(operation)!r}: {error}; give a valid path.")
    except MemoryError:
        return failed("The sandbox has too little memory for this; work on a smaller part with bash.")


def _dispatch(operation: Any, body: bytes, workspace: str) -> Reply:
    if isinstance(operation, Write):
        return editing.write(operation, body, workspace)
    if isinstance(operation, Put):
        return inside.put(operation, body, workspace)
    verb = _VERBS.get(type(operation))
    if verb is None:
        raise TypeError(f"{type(operation).__name__} is not a file or search operation")
    return verb(operation, workspace)


_VERBS: Dict[type, Callable[[Any, str], Reply]] = {
    Read: reading.read,
    Edit: editing.edit,
    Glob: search.glob,
    Grep: search.grep,
    List_: inside.list_folder,
    Fetch: inside.fetch,
    Outputs: lambda operation, workspace: outputs.outputs(operation),
    Remove: lambda operation, workspace: outputs.remove(operation),
    Usage: lambda operation, workspace: usage(workspace),
}


def _check(operation: Any) -> None:
    """Raises Refused for an argument of the wrong type: nothing before this looked at what a model sent."""
    for name, annotation in type(operation).__annotations__.items():
        value, wanted = getattr(operation, name), annotation.__forward_arg__
        if not isinstance(value, _TYPES[wanted]):
            raise Refused(f"{name} must be {wanted}, not {type(value).__name__}; correct it and try again.")


def _subject(operation: Any) -> str:
    """The path that an operation is about, as it was given."""
    return getattr(operation, "file_path", None) or getattr(operation, "path", None) or "."
