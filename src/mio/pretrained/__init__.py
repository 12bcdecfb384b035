"""Released checkpoints, one file per family: their files, their names, their numbers."""
