"""One run at a time writes to a destination: the one that came last.

Marks the destination as that run's, and says where unfinished parts are written; what becomes of
them is for the destinations.
"""

import uuid

from deployments.bulk.places import Place

# Readers of folders of Parquet files ignore names that begin with an underscore; Lance ignores all
# files but its own.
_UNFINISHED = "_unfinished"
_LEADER = "_leader"


class DestinationError(Exception):
    """Nothing can be written there; the message says why."""


class Lead:
    """One run's hold on a destination, until another one takes it over."""

    def __init__(self, place: Place) -> None:
        """Takes over, and removes what earlier runs left unfinished. Raises DestinationError."""
        self._place = place
        self._run = uuid.uuid4().hex
        self._started = 0
        try:
            (place / _LEADER).write(self._run.encode())
            (place / _UNFINISHED).remove_folder()
        except OSError as error:
            raise DestinationError(f"{place}: cannot be written ({error})") from None

    def next_unfinished(self) -> Place:
        """Where the next part is to be written."""
        self._started += 1
        return self._place / f"{_UNFINISHED}/{self._run}-{self._started}.parquet"

    def check(self) -> None:
        """Raises DestinationError if another run has taken over."""
        if (self._place / _LEADER).read(most=64) != self._run.encode():
            raise DestinationError(
                f"{self._place}: another run has taken this destination over; this one stops here"
            )

    def close(self) -> None:
        (self._place / _UNFINISHED).remove_folder()
