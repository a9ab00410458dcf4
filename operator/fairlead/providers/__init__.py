"""Cloud providers as data: one YAML file each, checked by a model, resolved for a backend into where a request goes and how."""
