"""Pages of lists, counted from 1. Pure: what a caller gives goes in, where the page begins comes out."""

from __future__ import annotations

from pytask.errors import InvalidInputError
from pytask.names import shown

MOST_PAGE = 10_000  # rows


def start_of_page(page: object, limit: object) -> int:
    """How many rows come before the page. Raises InvalidInputError."""
    if isinstance(page, bool) or not isinstance(page, int) or not 1 <= page <= 10**9:
        raise InvalidInputError(f"page is a number from 1 on, not {shown(page)}")
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST_PAGE:
        raise InvalidInputError(f"limit is a number from 1 to {MOST_PAGE}, not {shown(limit)}")
    return (page - 1) * limit
