"""The documentation's pictures, taken of the real program: `python -m scripts.screenshots`."""
