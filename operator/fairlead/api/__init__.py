"""The custom resources: types, defaults, rules, names and labels of children. Knows nothing else of fairlead."""
