"""From a YAML file to a world model, stage by stage."""
