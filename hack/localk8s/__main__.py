"""``python -m localk8s``: what ``hack/cluster`` runs."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the machine decides which python3 this is
    sys.exit(f"hack/cluster: Python 3.11 or newer is needed, this is {sys.version.split()[0]} (set PYTHON to another)")

from localk8s.cli import main

sys.exit(main(sys.argv[1:]))
