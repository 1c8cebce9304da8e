"""What the commands of `skiff` do, one a file. They print for people; `app` and `service` do the work."""
