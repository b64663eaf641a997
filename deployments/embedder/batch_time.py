"""How long the model takes for a batch of any size, judged by those that it has run."""

# A batch counts half as much after so many others.
HALF = 40


class BatchTime:
    """A line fitted to the times of recent batches: a fixed time, and one for each item.

    A model that is not busy sees only small batches, in which each item takes longer. The line says
    what an item would take in full ones.
    """

    def __init__(self) -> None:
        self._weight = self._k = self._kk = self._t = self._kt = 0.0

    def took(self, items: int, seconds: float) -> None:
        """Notes what one batch took."""
        keep = 0.5 ** (1 / HALF)
        self._weight = keep * self._weight + 1
        self._k = keep * self._k + items
        self._kk = keep * self._kk + items * items
        self._t = keep * self._t + seconds
        self._kt = keep * self._kt + items * seconds

    def seconds(self, items: int) -> float:
        """What a batch of so many items takes; 0 before the first batch."""
        if not self._weight:
            return 0.0
        k, t = self._k / self._weight, self._t / self._weight
        spread = self._kk / self._weight - k * k
        # Batches of one size do not tell the line's slope: then each item takes its part. Nor can
        # an item take less than nothing, or a batch of none.
        each = t / k
        if spread > 1e-3:
            each = min(each, max(0.0, (self._kt / self._weight - k * t) / spread))
        return max(t + each * (items - k), each * items)
