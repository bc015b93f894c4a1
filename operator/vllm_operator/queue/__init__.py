"""The queue: connection, streams and consumers, and the operator's view of heartbeats and progress."""
