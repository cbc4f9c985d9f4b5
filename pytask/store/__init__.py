"""The only place that sends Redis commands: connections, scripts, and one module a concern."""
