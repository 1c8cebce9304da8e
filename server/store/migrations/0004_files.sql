-- The bytes that lie in the folder of files, by name. A row without a file that names it is garbage: its bytes are
-- removed, then the row. Bytes without a row are left of a crash.
CREATE TABLE blobs (name TEXT PRIMARY KEY, created_at TEXT NOT NULL);

-- Files as the API shows them. One of three kinds: an upload (no scope), a session's own copy of an upload (scope and
-- blob; several files may share one blob), an output of a session (scope and path; its bytes lie in the sandbox).
-- `changed` is the time of an output's last change as the sandbox says it, to notice the next one.
CREATE TABLE files (
    id TEXT PRIMARY KEY, filename TEXT NOT NULL, mime_type TEXT NOT NULL, size_bytes BIGINT NOT NULL,
    created_at TEXT NOT NULL, expires_at TEXT, session_id TEXT REFERENCES sessions (id) ON DELETE CASCADE,
    blob TEXT REFERENCES blobs (name), path TEXT, changed TEXT, UNIQUE (session_id, path)
);
CREATE INDEX files_by_age ON files (created_at, id);
CREATE INDEX files_by_session ON files (session_id, created_at, id);
CREATE INDEX files_by_blob ON files (blob);

-- What a session was given. `secret` never leaves the server. `state`: waiting (for the sandbox), placed, removing.
CREATE TABLE resources (
    id TEXT PRIMARY KEY, session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE, type TEXT NOT NULL,
    body TEXT NOT NULL, secret TEXT, file_id TEXT REFERENCES files (id) ON DELETE CASCADE, state TEXT NOT NULL,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL
);
CREATE INDEX resources_by_session ON resources (session_id, created_at, id);
CREATE INDEX resources_by_file ON resources (file_id);
