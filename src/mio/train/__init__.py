"""One loop, objectives as functions, and what each trainable part needs around it while it learns."""
