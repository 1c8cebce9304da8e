"""The hands: where commands that a model wrote are run, and what is promised about that place.

Promised by every backend
    * no network, unless the environment opens hosts; then only through the policy proxy outside, which resolves
      names itself and refuses private, loopback and link-local addresses
    * no secret of the server: no environment variable, key, socket or file of the host is visible inside
    * no root, no capability, no new privilege; the file system is read-only but for the workspace and /tmp
    * bounded memory and processes where the backend can (see its `promises`), bounded output always
    * the server never opens a workspace path itself: all file work is done inside, by the runner

Not promised
    * a wall against kernel exploits: containers and namespaces share the host's kernel
    * that an environment's packages are harmless: their install scripts run outside the sandbox, see `docker/install`
    * that the agent cannot harm its own sandbox: it may fill its disk, kill its shell, delete its files
    * that what the runner says is true: it runs at the agent's level of trust, and every frame is read as hostile

`protocol.py` is the boundary, `wire.py` the frames, `channel.py` the server's end of them, `runner/` the other end,
`docker/` and `local/` the backends, `egress/` the policy proxy. Nothing here imports `server`.
"""
