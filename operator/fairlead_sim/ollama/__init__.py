"""What Ollama looks like from outside: the command line, the server's API, models on disk, pulls, keep-alive."""
