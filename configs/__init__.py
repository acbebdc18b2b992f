"""Experiments, one YAML file each; what they reached is in results/."""
