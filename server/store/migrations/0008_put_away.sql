-- Sandboxes that were put away: a row in state `stored` has its files in an archive of this name and size, and nowhere
-- else. State `stopped` is `live` without processes. `news` is what the agent is to be told with its next result.
ALTER TABLE sandboxes ADD COLUMN archive TEXT;
ALTER TABLE sandboxes ADD COLUMN archive_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN news TEXT NOT NULL DEFAULT '';
