"""The Docker backend: sandboxes as containers of an engine that the `docker` command would use.

`backend` makes, finds and removes; `launch` makes one container and its channel; `container` is one live sandbox;
`options` and `labels` (pure) are what the engine is asked for; `images` and `base` build what it runs, `install`,
`packages` (pure) and `indexes` put packages into it, `shelf` knows what has been built; `pool` and `reaper` keep
sandboxes ready and collect forgotten ones; `disk` and `idle` (pure at heart) bound them; `engine`,
`endpoint`, `failure` and `attach` are the way to the engine. docker-py is imported in `engine` alone, and only when an
engine is first needed.
"""

from sandbox.docker.backend import DockerBackend

__all__ = ["DockerBackend"]
