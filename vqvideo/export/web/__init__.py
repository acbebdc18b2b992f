"""The page that plays a world: HTML, CSS and JavaScript, without a framework."""
