"""What app.py is composed of: the parts, and how each role wires its own."""
