"""A fleet of simulated nodes against one real server and one real PostgreSQL: `python -m benchmarks.fleet`."""

SAMPLE_SECONDS = 15.0  # over which one interval's readings of all nodes are spread
