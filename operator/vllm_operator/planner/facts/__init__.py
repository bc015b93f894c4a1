"""What a model's own files say about it. Pure: bytes and parsed JSON in, ``ModelFacts`` out."""
