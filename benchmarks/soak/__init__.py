"""A server under mixed load for as long as one likes: whether anything grows without bound, or is lost."""
