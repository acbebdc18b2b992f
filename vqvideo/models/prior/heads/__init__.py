"""Heads: how the tokens of a latent step are drawn, one class each, all on the same backbone."""
