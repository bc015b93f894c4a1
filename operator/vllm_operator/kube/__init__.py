"""The Kubernetes API as the operator uses it: a client Protocol, its adapter, typed errors. Knows no CRD module."""
