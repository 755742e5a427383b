"""The trail kept whole: sealed, witnessed, verified, and what was given up put on record."""
