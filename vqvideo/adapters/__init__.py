"""Imagined environments as other libraries of reinforcement learning want them. Each is imported by its own name."""
