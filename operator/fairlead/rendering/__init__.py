"""`fairlead render` without its command line: manifests in, the operator's objects and findings out, offline; and `fairlead explain`,
which asks the same route table where a request would go.

It asks the same validation and the same planner as the operator, and beyond them what only the API server could say: whether
raw Kubernetes fields have the shape that Kubernetes publishes.
"""
