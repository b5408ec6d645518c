"""Models as files of other programs: GGUF, for llama.cpp and Ollama."""
