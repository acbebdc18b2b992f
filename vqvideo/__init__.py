"""vqvideo."""
