"""Scores with counts and intervals, judges trained apart from the model, tasks on the validation split."""
