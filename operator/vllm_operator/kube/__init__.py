"""The Kubernetes API as the operator uses it: a small client Protocol, its adapter, and typed errors. Knows no CRD module."""
