"""A random tester of the protocol."""
