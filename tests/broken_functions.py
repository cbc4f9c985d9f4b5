"""A module that cannot be imported; the tests allow it."""

import sys

sys.exit("broken at import")
