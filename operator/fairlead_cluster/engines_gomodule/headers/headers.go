//go:build never

// Package headers pins the C headers that Ollama's module zip lacks: Go leaves folders called `vendor` out of module
// zips, and llama.cpp keeps nlohmann/json, stb_image and miniaudio in one. An older Ollama had the first two outside
// `vendor`, and malgo carries miniaudio. Never compiled.
package headers

import (
	_ "github.com/gen2brain/malgo"
	_ "github.com/ollama/ollama"
)
