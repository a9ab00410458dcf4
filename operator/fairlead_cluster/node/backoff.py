"""The kubelet's restart back-off: doubling, per container, forgotten after twice its maximum without a failure."""

from __future__ import annotations


class BackOff:
    """Delays between restarts. Times are seconds of any one clock.

    The first restart is immediate, the following wait `first_s`, twice that, and so on up to `max_s`, counted from the
    end of the run before.
    """

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self.current_s = 0.0
        self._updated_at_s = 0.0

    def remaining_s(self, ended_at_s: float, now_s: float) -> float:
        """How long to wait yet after a run that ended at `ended_at_s`; 0 if not at all."""
        if self._has_expired(ended_at_s):
            return 0.0
        return max(0.0, ended_at_s + self.current_s - now_s)

    def note_start(self, ended_at_s: float, now_s: float) -> None:
        """A restart happens now: the next one waits longer."""
        if self.current_s == 0.0 or self._has_expired(ended_at_s):
            self.current_s = min(self._first_s, self._max_s)
        else:
            self.current_s = min(self.current_s * 2, self._max_s)
        self._updated_at_s = now_s

    def _has_expired(self, at_s: float) -> bool:
        return at_s - self._updated_at_s > 2 * self._max_s


def format_duration(seconds: float) -> str:
    """As Go prints durations in messages: `10s`, `1m20s`, `5m0s`, `500ms`."""
    if 0 < seconds < 1:
        return f"{round(seconds * 1000)}ms"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
