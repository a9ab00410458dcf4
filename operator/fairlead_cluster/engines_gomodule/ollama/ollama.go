//go:build never

// Package ollama pins the module of the Ollama command, with everything that goes into it, in go.mod and go.sum.
// It is never compiled: `fairlead_cluster/engines.py` builds the command's own package from here.
package ollama

import _ "github.com/ollama/ollama"
