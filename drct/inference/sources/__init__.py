"""Kinds of files that networks are read from besides weights of the known families, one module for each."""
