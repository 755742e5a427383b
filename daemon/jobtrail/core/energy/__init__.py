"""The node's energy, divided among its runs."""
