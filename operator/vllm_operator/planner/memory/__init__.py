"""What a replica needs of each GPU's memory, beside the KV cache that ``planner.kv_cache`` counts."""
