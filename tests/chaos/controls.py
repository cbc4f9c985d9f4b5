"""Controls: safeguards of the product, switched off in a node of the tests, to see that the suite notices."""

from __future__ import annotations

VARIABLE = "PYTASK_TEST_CONTROL"


def apply(name: str) -> None:
    """Switch the safeguard of this name off; nothing where it is empty."""
    if name:
        raise NotImplementedError(name)
