"""Worlds outside of torch: the page that plays them, and what it takes to put it onto any static server."""
