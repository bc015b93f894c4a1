"""The runtime image: supervisor of the vLLM server and its queue agent, and the middleware inside the engine."""
