"""Engine simulator: the HTTP surfaces, metrics, load time and drain of vLLM and Ollama, without a GPU or a model.

Fairlead's tests and its demo run it in place of the engines; users run it to rehearse routes and scaling. It is
written from the engines' documented interfaces and imports nothing of `fairlead`: what judges the operator shares no
code with it. See docs/simulator.md.
"""
