"""Tables of what was used last."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """At most `bound` values by key; the least recently used go first. Thread-safe, also in a child that was
    forked while another thread used it.

    A value that left the table and is still in use elsewhere is found again as long as it lives.
    """

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self._recent: OrderedDict[str, T] = OrderedDict()
        self._alive: weakref.WeakValueDictionary[str, T] = weakref.WeakValueDictionary()
        self._renew_lock()
        _tables.add(self)

    def __len__(self) -> int:
        return len(self._recent)

    def get(self, key: str) -> T | None:
        """The value stored under `key`, or None."""
        with self._lock:
            found = self._recent.get(key)
            if found is not None:
                self._recent.move_to_end(key)
                return found
            found = self._alive.get(key)
            if found is not None:
                self._keep(key, found)
            return found

    def add(self, key: str, value: T) -> T:
        """Store `value`, unless another thread was first: the value that is stored."""
        with self._lock:
            found = self._alive.setdefault(key, value)
            self._keep(key, found)
            return found

    def _keep(self, key: str, value: T) -> None:
        self._recent[key] = value
        self._recent.move_to_end(key)
        while len(self._recent) > self.bound:
            self._recent.popitem(last=False)

    def _renew_lock(self) -> None:
        # finalisers of values run while it is held
        self._lock = threading.RLock()


_tables: weakref.WeakSet[Recent] = weakref.WeakSet()


def _renew_locks() -> None:
    for table in _tables:
        table._renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
