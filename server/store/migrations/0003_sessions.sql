-- What the list of sessions filters by, and what a client keeps beside a session. `status` is that of the newest status
-- event. Until now every agent had one version, and every spec began with its agent and the agent with its id.
ALTER TABLE sessions ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';
ALTER TABLE sessions ADD COLUMN agent_id TEXT;
ALTER TABLE sessions ADD COLUMN agent_version INTEGER;
ALTER TABLE sessions ADD COLUMN status TEXT NOT NULL DEFAULT 'idle';
UPDATE sessions SET agent_version = 1, agent_id = (
    SELECT agents.id FROM agents WHERE sessions.spec LIKE '{"agent":{"id":"' || agents.id || '"%' LIMIT 1
);
UPDATE sessions SET status = COALESCE((
    SELECT CASE type
        WHEN 'session.status_running' THEN 'running'
        WHEN 'session.status_rescheduled' THEN 'rescheduling'
        WHEN 'session.status_terminated' THEN 'terminated'
        ELSE 'idle' END
    FROM events
    WHERE session_id = sessions.id AND type IN (
        'session.status_running', 'session.status_idle', 'session.status_rescheduled', 'session.status_terminated'
    )
    ORDER BY seq DESC LIMIT 1
), 'idle');
CREATE INDEX sessions_by_agent ON sessions (agent_id, created_at, id);
