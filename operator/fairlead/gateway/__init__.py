"""The gateway: the route table, what Envoy is told of it, and the two Lua texts that run in the request path. Pure."""
