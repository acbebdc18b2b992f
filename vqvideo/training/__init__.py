"""One training loop on Accelerate and what it needs. Knows no model and no store."""
