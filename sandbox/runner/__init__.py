"""The small program inside every sandbox: it runs the tools and answers the server in frames.

Above: `sandbox.channel`, over the container's stdin and stdout. Below: bash, the file system, /proc.
Standard library only, Python 3.8 syntax, one thread on `selectors`; a copy of this folder, `wire.py` and
`sandbox/__init__.py` is the whole of what an image needs.

    loop        file objects, timers and children that are waited for together
    stream      frames in and out of two descriptors, never blocking
    core        what each frame means: the journal is asked, then a shell or a job does the work
    journal     which operations ran, so that none runs twice
    shell       one live bash per thread: a queue of calls, their time limits, their ends
    supervisor  the process above each bash: whatever a command starts stays below it and can be killed
    output      what is kept of a command's output, and what goes to a file
    jobs        file operations: their queue and time limits
    child       a forked process that does them, one at a time (`files`, `search`)
    net         connections of the sandbox, carried over the same stream
    procs       prctl, descriptors and /proc

It knows nothing of sessions, models or engines, and holds nothing that the sandbox may not see.
"""
