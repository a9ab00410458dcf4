"""Helm, kind and kstatus from Go modules, built once into the user's cache: what the packaging is judged with."""
