"""What lies on disk: files that are complete and checkable or not there at all. Knows no model."""
