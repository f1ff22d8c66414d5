"""Two results held against one another: what both have, whose images are the same, what has changed."""
