"""The CPU engine: GGUF models through llama.cpp. Worker side only."""
