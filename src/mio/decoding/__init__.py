"""Which ids may come next, which one does, and the loop with its cache."""
