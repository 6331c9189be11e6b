"""How often each tenant may ask: token buckets."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from atomserve.settings import TenantSettings
from atomserve.units import DURATION

REMEMBERED = 4096
"""Most tenants whose buckets are kept; one that is forgotten begins with a full one."""
BURST = 1.0
"""Seconds' worth of a rate that may come at once, and at least one request."""
OTHERS = "*"
"""In the table of tenants: those that have no entry of their own."""


class Bucket:
    """Fills at ``rate`` tokens a second, up to ``most``."""

    __slots__ = ("_at", "_tokens", "most", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self.most = max(1.0, rate * BURST)
        self._tokens = self.most
        self._at = now

    def wait(self, now: float) -> float:
        """Return the seconds until there is a token; 0 if there is one."""
        self._tokens = min(self.most, self._tokens + (now - self._at) * self.rate)
        self._at = now
        # What rounding took away must not make the client come once more.
        return max(0.0, (1.0 - self._tokens) / self.rate) if self._tokens < 1.0 - 1e-9 else 0.0

    def spend(self) -> None:
        self._tokens -= 1.0


class Quotas:
    """The buckets of the tenants that have a rate; ``part`` of it counts in this process."""

    __slots__ = ("_buckets", "_rates")

    def __init__(self, tenants: Mapping[str, TenantSettings], part: float = 1.0) -> None:
        self._rates = {
            name: per_second(each.rate) * part for name, each in tenants.items() if each.rate
        }
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._rates)

    def __len__(self) -> int:
        return len(self._buckets)

    def bucket(self, tenant: str, now: float) -> Bucket | None:
        """Return the tenant's bucket, if it has a rate."""
        rate = self._rates.get(tenant, self._rates.get(OTHERS))
        if rate is None:
            return None
        bucket = self._buckets.get(tenant)
        if bucket is None:
            bucket = self._buckets[tenant] = Bucket(rate, now)
            if len(self._buckets) > REMEMBERED:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(tenant)
        return bucket


def per_second(written: str) -> float:
    """Return the number a second that ``100/s`` or ``5000/h`` says."""
    number, _, unit = written.partition("/")
    return int(number) / DURATION.parse(f"1{unit}")
