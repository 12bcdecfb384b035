"""From raw files to packed batches: items, tasks, a token store, packing, a loader."""
