"""The queue agent beside an engine: leases shards, runs their rows, publishes results, reports itself."""
