"""``python -m dit`` is ``dit``."""

from dit.cli import main

main()
