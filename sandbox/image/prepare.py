# ruff: noqa: UP031
"""Runs once, as root, while a sandbox image is built: checks the image, compiles the runner, makes uid 1000.

Above: runner.Dockerfile. Below: the image's own Python. Standard library only,
and syntax so old that any Python 3 can start it: an old one must be able to refuse itself in words.
"""

import os
import sys

AGENT = 1000
SESSION = "/mnt/session"
OLDEST = (3, 8)
REFUSED = 38
"""The exit code that `sandbox.docker.images` reads as "this image will never do"."""


def refuse(why: str) -> None:
    """End the build with words that `sandbox.docker.images` finds again in the build's output."""
    sys.stderr.write("skiff-refused: " + why + "\n")
    sys.exit(REFUSED)


def check() -> None:
    """The image must have what the runner and the model's shell need."""
    if sys.version_info[:2] < OLDEST:
        refuse("its python3 is %d.%d, the runner needs 3.8 or newer" % sys.version_info[:2])
    if not any(os.access(os.path.join(folder, "bash"), os.X_OK) for folder in ("/bin", "/usr/bin", "/usr/local/bin")):
        refuse("it has no bash")
    for path in ("/workspace", SESSION):
        if os.path.isdir(path) and os.listdir(path):
            refuse("its %s is not empty, a sandbox's must begin empty" % path)


def compile_runner() -> None:
    """Start-up counts: the parsing is done here once instead of at every container start."""
    import compileall
    import py_compile

    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir("/opt/skiff", quiet=1, invalidation_mode=mode):
        refuse("its Python could not compile the runner")


def has(path: str, number: str) -> bool:
    """Whether passwd or group at `path` knows this uid or gid."""
    if not os.path.exists(path):
        return False
    with open(path) as file:
        return any(line.split(":")[2:3] == [number] for line in file)


def make_agent() -> None:
    """A line in passwd and group by hand: minimal images have no useradd."""
    for path, line in (
        ("/etc/group", "agent:x:%d:\n" % AGENT),
        ("/etc/passwd", "agent:x:%d:%d:agent:/workspace:/bin/bash\n" % (AGENT, AGENT)),
    ):
        if not has(path, str(AGENT)):
            with open(path, "a") as file:
                file.write(line)


def make_workspace() -> None:
    """The engine copies owner and mode of these folders to each new volume.

    What a session is given lies in a folder of root's, below a folder of root's: the agent can neither change it nor
    put something else in its place.
    """
    for path, owner in (
        ("/workspace", AGENT),
        (SESSION, 0),
        (SESSION + "/uploads", 0),
        (SESSION + "/outputs", AGENT),
    ):
        os.makedirs(path, exist_ok=True)
        os.chown(path, owner, owner)
        os.chmod(path, 0o755)


check()
compile_runner()
make_agent()
make_workspace()
