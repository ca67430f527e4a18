"""The pulse: how whatever works on a unit tells that it lives, without knowing who listens."""

import time
from collections.abc import Callable

_EVERY_S = 0.2
_state: dict[str, float] = {"items": 0.0, "told": 0.0}
_listeners: list[Callable[[int], None]] = []


def listen(listener: Callable[[int], None] | None) -> None:
    """Makes `listener` the only one, or leaves none."""
    _listeners[:] = [] if listener is None else [listener]
    _state.update(items=0.0, told=time.monotonic())


def beat(items: int = 0) -> None:
    """Tells that the work goes on, and how many items more there were; does nothing where nobody listens."""
    if not _listeners:
        return
    _state["items"] += items
    now = time.monotonic()
    if now - _state["told"] >= _EVERY_S:
        count = int(_state["items"])
        _state.update(items=0.0, told=now)
        _listeners[0](count)
