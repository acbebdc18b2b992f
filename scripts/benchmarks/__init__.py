"""Speed and memory measured against peers, in the same run: what scripts/benchmark.py calls, one file per subject."""
