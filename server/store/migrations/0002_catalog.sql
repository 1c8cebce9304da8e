-- An agent is now a row of its own, with a row in agent_versions for each version; until now every agent had one.
-- `digest` finds an agent that was described inline, as long as nobody has changed it; `saved_at` says which one a name
-- stands for: the newest. `archived_at` is the agent's, not a version's.
ALTER TABLE agents RENAME TO agents_before;
CREATE TABLE agents (
    id TEXT PRIMARY KEY, version INTEGER NOT NULL, name TEXT NOT NULL, digest TEXT, created_at TEXT NOT NULL,
    saved_at TEXT NOT NULL, archived_at TEXT
);
CREATE TABLE agent_versions (
    agent_id TEXT NOT NULL REFERENCES agents (id), version INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (agent_id, version)
);
INSERT INTO agents (id, version, name, digest, created_at, saved_at, archived_at)
    SELECT id, version, name, digest, created_at, created_at, NULL FROM agents_before;
INSERT INTO agent_versions (agent_id, version, body) SELECT id, version, body FROM agents_before;
DROP TABLE agents_before;
CREATE INDEX agents_by_name ON agents (name, saved_at);
CREATE INDEX agents_by_digest ON agents (digest);
CREATE INDEX agents_by_age ON agents (created_at, id);

-- Environments have no versions. The columns mean what they mean above.
ALTER TABLE environments RENAME TO environments_before;
CREATE TABLE environments (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, digest TEXT, body TEXT NOT NULL, created_at TEXT NOT NULL,
    saved_at TEXT NOT NULL, archived_at TEXT
);
INSERT INTO environments (id, name, digest, body, created_at, saved_at, archived_at)
    SELECT id, name, digest, body, created_at, created_at, NULL FROM environments_before;
DROP TABLE environments_before;
CREATE INDEX environments_by_name ON environments (name, saved_at);
CREATE INDEX environments_by_digest ON environments (digest);
CREATE INDEX environments_by_age ON environments (created_at, id);
