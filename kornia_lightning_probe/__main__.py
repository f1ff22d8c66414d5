"""`python -m kornia_lightning_probe`, the same as the command `kornia-lightning-probe`."""

from __future__ import annotations

import sys

from kornia_lightning_probe.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
