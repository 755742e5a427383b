"""Who may come in, and who was turned away."""
