-- Facts about the data folder itself: installation id, the engine's epoch.
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);

-- Agents, one row a version. `digest` finds an inline agent again, so that equal ones share an id.
CREATE TABLE agents (
    id TEXT NOT NULL, version INTEGER NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, body TEXT NOT NULL,
    created_at TEXT NOT NULL, PRIMARY KEY (id, version)
);
CREATE INDEX agents_by_name ON agents (name, created_at);
CREATE INDEX agents_by_digest ON agents (digest);

-- Environments. `digest` as above.
CREATE TABLE environments (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL, body TEXT NOT NULL, created_at TEXT NOT NULL
);
CREATE INDEX environments_by_name ON environments (name, created_at);
CREATE INDEX environments_by_digest ON environments (digest);

-- Sessions. `spec` is frozen at creation (agent, environment, rendered prompt and tools, backend); `head` is the
-- newest event's number; `attention` says that the engine has something to do; `fold` caches the folded state at
-- `fold_seq` and may be thrown away.
CREATE TABLE sessions (
    id TEXT PRIMARY KEY, thread_id TEXT NOT NULL, title TEXT, spec TEXT NOT NULL, head INTEGER NOT NULL DEFAULT 0,
    attention INTEGER NOT NULL DEFAULT 0, fold TEXT, fold_seq INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL, archived_at TEXT
);
CREATE INDEX sessions_by_age ON sessions (created_at, id);
CREATE INDEX sessions_at_work ON sessions (attention) WHERE attention = 1;

-- The log. Rows are never updated. `public` is what the doors show, `private` what only the engine reads.
CREATE TABLE events (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE, seq INTEGER NOT NULL, id TEXT NOT NULL,
    thread_id TEXT NOT NULL, type TEXT NOT NULL, public TEXT, private TEXT, PRIMARY KEY (session_id, seq)
) WITHOUT ROWID;

-- What was asked under a key, so that asking again gives the same answer.
CREATE TABLE request_keys (
    scope TEXT NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL, answer TEXT NOT NULL, created_at TEXT NOT NULL,
    PRIMARY KEY (scope, key)
);

-- Which sandbox belongs to which session. A row in state `making` or `removing` is an intent, written before the
-- backend is asked. No foreign key: the row must outlive its session until the sandbox is gone.
CREATE TABLE sandboxes (
    session_id TEXT PRIMARY KEY, slot TEXT NOT NULL, backend TEXT NOT NULL, container TEXT NOT NULL,
    incarnation TEXT NOT NULL, state TEXT NOT NULL, updated_at TEXT NOT NULL
);

-- Files given before there is a sandbox; placed when it is made, then deleted from here.
CREATE TABLE staged_files (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE, path TEXT NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (session_id, path)
);
