"""Whose GPUs are whose, and what runs had of them."""
