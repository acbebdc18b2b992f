"""One page on what worlds are worth: measured, drawn, and written as HTML that needs nothing else."""
