"""Frozen types of what is observed, and the protocols of those who observe. Knows the API types and nothing else."""
