"""I/O other than Kubernetes': what engines, gateways and monitoring say. Each module answers in the types of `facts/`."""
