"""The verbs: what a user types, each a page of calls."""
