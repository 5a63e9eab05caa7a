"""Training and test runs as option files describe them."""
