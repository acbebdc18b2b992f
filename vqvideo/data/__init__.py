"""Episodes on disk and the clips that training sees."""
