"""Hostile inputs for the commands, made from good ones by seeded mutations: `python -m fuzz` and `make fuzz`."""
