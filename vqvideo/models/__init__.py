"""The models: tensors in, tensors out. Knows no store, no training loop and no environment."""
