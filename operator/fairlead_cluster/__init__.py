"""The local cluster: a real Kubernetes control plane and a stand-in for its nodes, on loopback, without root or Docker.

It exists so that the operator is judged by the real API server, controllers and scheduler, on any Linux machine.
Nothing here imports `fairlead`: a judge shares no code with what it judges; the operator is only started as a process.
"""
