"""Where taskkit has the kit for Redis."""

from pytask.compat.taskkit.kit import make_kit as make_kit
