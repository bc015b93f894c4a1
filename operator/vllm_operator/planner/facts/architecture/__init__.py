"""The layers of a model, as its configuration describes them and vLLM's model files build them."""
