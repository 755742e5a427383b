"""A year of a cluster's jobs, the size at which questions must still be answered through indexes."""
