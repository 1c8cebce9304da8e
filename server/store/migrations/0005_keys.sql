-- API keys. `digest` is the SHA-256 of the whole key; the key itself is kept nowhere. A revoked key stays listed.
CREATE TABLE api_keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL, created_at TEXT NOT NULL, used_at TEXT,
    revoked_at TEXT
);

-- Answers under an Idempotency-Key go after a day.
CREATE INDEX request_keys_by_age ON request_keys (created_at);
