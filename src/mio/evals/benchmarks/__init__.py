"""Public benchmarks in the files that their makers publish -> items. Reads a local folder, downloads nothing."""
