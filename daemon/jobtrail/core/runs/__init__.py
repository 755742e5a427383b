"""The runs of this node: measured, shown, ended."""
