"""What Slurm is asked and told, and what follows from its answers."""
