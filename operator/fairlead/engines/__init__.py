"""Inference engines as data: one `<name>.yaml.j2` per engine, rendered for a frozen context and checked by a model."""
