"""Leaves: each module speaks to one outside thing and imports no other adapter."""
