"""How many replicas: the control law and the schedules. Pure."""
