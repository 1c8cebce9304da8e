"""What is kept to be used by sessions: agents, in versions, and environments."""
