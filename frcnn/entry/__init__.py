"""The door from a command line to a command: overrides, specs, help and exit codes."""
