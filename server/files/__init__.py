"""Files: what clients upload, what sessions are given and what they hand out."""
