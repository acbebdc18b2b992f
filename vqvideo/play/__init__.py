"""Dreams that are played through a browser, on this machine: a server whose page sends keys and gets frames."""
