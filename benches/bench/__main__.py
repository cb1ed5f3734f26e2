"""`python3 benches/bench`: see command.py."""

import sys

from command import main

sys.exit(main())
