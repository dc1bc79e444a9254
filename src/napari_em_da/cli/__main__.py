"""``python -m napari_em_da.cli``."""

import sys

from napari_em_da.cli import main

sys.exit(main())
