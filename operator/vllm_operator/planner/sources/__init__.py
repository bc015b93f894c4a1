"""Where a model is, and reading its files there: a directory of a volume, or a repository of the model hub."""
