-- What was spent on each day of UTC, over all sessions, deleted ones included. It is held to the operator's caps.
CREATE TABLE spending (day TEXT PRIMARY KEY, nano_usd INTEGER NOT NULL, tokens INTEGER NOT NULL);
