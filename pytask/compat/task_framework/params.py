"""TaskParams, which needs pydantic."""

from __future__ import annotations

from pytask.params import MISSING

try:
    from pydantic import BaseModel, ConfigDict
except ImportError:
    raise ImportError(f"TaskParams: {MISSING}") from None


class TaskParams(BaseModel):
    """The params of a task, checked by pydantic. Names that it does not declare are let through as they are."""

    model_config = ConfigDict(extra="allow")
