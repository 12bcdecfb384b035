"""Media <-> codes, one file per tokenizer. Nothing here knows ids."""
