"""The operator: reconciles LLMServices and InferenceJobs."""
