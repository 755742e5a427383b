"""A fleet of simulated nodes against one real server and one real PostgreSQL: `python -m benchmarks.fleet`."""
