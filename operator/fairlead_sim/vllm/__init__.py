"""What `vllm serve` looks like from outside: command line, start-up, HTTP surface, metrics, shutdown."""
