"""Storage: `Store`, written once over the small `Database` protocol. Nothing above this folder sees SQL."""
