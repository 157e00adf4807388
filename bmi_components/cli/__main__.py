"""`python -m bmi_components.cli`: the command line where its script is not on the path."""

import sys

from bmi_components.cli import main

sys.exit(main())
