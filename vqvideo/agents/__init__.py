"""Agents that learn in dreams, by Stable-Baselines3 (`pip install 'vqvideo[agent]'`)."""
