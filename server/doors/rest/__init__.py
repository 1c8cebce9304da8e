"""The REST door: the wire API of Claude Managed Agents, on the same sessions as the MCP door."""
