"""Experiments on what the project promises: the tests run each a few times, `python tests/reliability` many times."""
