module fairlead.dev/cluster/engines/headers

go 1.26

require (
	github.com/gen2brain/malgo v0.11.24
	github.com/ollama/ollama v0.5.7
)
