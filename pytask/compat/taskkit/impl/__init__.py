"""Where taskkit has the kits of its backends."""
