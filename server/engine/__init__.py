"""Which process drives the sessions of a data folder. One is the engine, elected by a held file lock; the others are
doors that append inputs, follow the log and hand everything else to the engine over its socket. When the engine dies
the lock is free at once, and one of the doors takes over by the same path as after a crash.
"""
