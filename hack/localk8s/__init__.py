"""A real Kubernetes for development and tests, on one machine, without a container registry.

``control_plane`` and ``nats_server`` run servers as unprivileged child
processes for integration tests; ``cli`` (``hack/cluster``) brings up a whole
node. Only the standard library is used, so that the package runs before
anything is installed.
"""
