"""Kubernetes input and output: what is asked of the API server, how its answers are kept. Decides nothing."""
