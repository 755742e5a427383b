"""Speed and size, each figure next to a reference measured in the same run."""
