"""Version v1alpha1 of the custom resources."""

from vllm_operator_api.v1alpha1.inferencejob import InferenceJob, InferenceJobSpec, InferenceJobStatus
from vllm_operator_api.v1alpha1.llmservice import LLMService, LLMServiceSpec
from vllm_operator_api.v1alpha1.llmservice_status import LLMServiceStatus

__all__ = [
    "InferenceJob",
    "InferenceJobSpec",
    "InferenceJobStatus",
    "LLMService",
    "LLMServiceSpec",
    "LLMServiceStatus",
]
