"""The built-in tasks: ordinary Task classes on the public helpers and the store."""
