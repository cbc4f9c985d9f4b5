"""The daemon: one running node. A service a file, all with one start/stop contract."""
