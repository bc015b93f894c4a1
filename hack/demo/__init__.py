"""The main job from nothing to the end, on the local cluster (``make demo``); end-to-end tests use the same pieces."""
