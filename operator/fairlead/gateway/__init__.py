"""The gateway: the route table, what Envoy is told of it, and the three Lua texts that run in the request path. Pure."""
