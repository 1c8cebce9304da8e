"""The sandboxes of sessions: which belongs to whom, how long each is kept, and what lies in it."""
