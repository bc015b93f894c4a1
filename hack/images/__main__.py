"""``python -m images``: what ``hack/images/build`` runs."""

import sys

from images.cli import main

sys.exit(main(sys.argv[1:]))
