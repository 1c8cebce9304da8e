"""The rows of the crash matrix, a file for each part of a session's life."""
