"""Analyses of networks and runs: complexity, features, attribution, training curves, speed."""
