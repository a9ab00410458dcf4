"""Stories told on the local cluster: what a user does in the first five minutes, done and shown."""
