"""`jobtrail bench`: recipes, runs of them, and their results."""
