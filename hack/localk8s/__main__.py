"""``python -m localk8s``: what ``hack/cluster`` runs."""

import sys

from localk8s.cli import main

sys.exit(main(sys.argv[1:]))
