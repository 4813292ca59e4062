"""What leaves the project: the exported graph, the files around it, and what runs it."""
