"""Fenced fills of a Redis cache that pg_uncache keeps consistent with PostgreSQL."""
from ._fence import AsyncFence, Fence
from .database import Database

__version__ = "1.0.0"
__all__ = ["AsyncFence", "Database", "Fence"]
