"""The running operator: kopf's process and streams, the work queue, the worker loop, and what operators of operators look at."""
