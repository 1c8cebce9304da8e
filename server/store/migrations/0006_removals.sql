-- The log of a deleted session goes away in steps, after its session: taken away at once, a long one would hold up whoever
-- writes for a second. So its rows refer to the session no more.
ALTER TABLE events RENAME TO events_before;
CREATE TABLE events (
    session_id TEXT NOT NULL, seq INTEGER NOT NULL, id TEXT NOT NULL, thread_id TEXT NOT NULL, type TEXT NOT NULL,
    public TEXT, private TEXT, PRIMARY KEY (session_id, seq)
) WITHOUT ROWID;
INSERT INTO events SELECT session_id, seq, id, thread_id, type, public, private FROM events_before;
DROP TABLE events_before;

-- Sessions that are deleted, rows of whose log are still there.
CREATE TABLE removals (session_id TEXT PRIMARY KEY);
