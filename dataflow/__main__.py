"""`python -m dataflow` is the command `dataflow`."""

import sys

from .cli import main

sys.exit(main())
