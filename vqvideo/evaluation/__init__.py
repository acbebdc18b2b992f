"""What trained models are worth on held-out clips, one file per kind of model."""
