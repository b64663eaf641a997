"""The result as a Lance dataset, a table of LanceDB: each part is one commit to it.

Tasks write parts as for `parts`; the process that leads the run copies them into the dataset. What
is in it is done, so that a part whose commit was cut off is embedded again, and none is there
twice. Knows nothing of Ray.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lance
import pyarrow as pa
from lance.fragment import write_fragments
from pyarrow import parquet

from deployments.bulk.lead import DestinationError, Lead
from deployments.bulk.parts import (
    PASSING_ERROR,
    Keys,
    Model,
    WrittenPart,
    check_model,
    in_order,
    keys_of,
    schema,
)
from deployments.bulk.places import Place


class LanceDestination:
    """A Lance dataset, led by one run at a time."""

    def __init__(self, place: Place, model: Model) -> None:
        """Makes the dataset, or takes it over from earlier runs.

        Raises DestinationError or PlaceError if anything else is there.
        """
        self.place = place
        self.model = model
        self._options = _storage_options(place)
        self._schema = schema(model)
        found = self._found()
        self._lead = Lead(place)
        with self._explained():
            if found is None:
                self._dataset = lance.write_dataset(
                    self._schema.empty_table(), str(place), storage_options=self._options
                )
            else:
                found.checkout_latest()  # what another run wrote until it lost the lead
                self._dataset = found

    def done(self) -> Keys:
        """The keys of all rows, without those whose failure may be past: they are to be tried
        again, and deleted first, so that readers find each source once. Raises DestinationError.
        """
        with self._explained():
            self._dataset.delete(f"regexp_like(error, '{PASSING_ERROR}')")
            batches = self._dataset.to_batches(columns=["source", "origin"])
            return in_order(
                [
                    keys_of(rows["origin"].to_pylist(), rows["source"].to_pylist())
                    for rows in batches
                ]
            )

    def next_unfinished(self) -> Place:
        """Where the next part is to be written."""
        return self._lead.next_unfinished()

    def commit(self, part: WrittenPart) -> None:
        """Makes a part count. Raises DestinationError if another run has taken over."""
        with self._explained():
            with parquet.ParquetFile(part.path, filesystem=self.place.system) as file:
                rows = pa.RecordBatchReader.from_batches(self._schema, file.iter_batches())
                fragments = write_fragments(
                    rows, self._dataset, mode="append", storage_options=self._options
                )
            self._lead.check()  # after copying, which takes longer than the commit
            self._dataset = lance.LanceDataset.commit(
                self._dataset,
                lance.LanceOperation.Append(fragments),
                read_version=self._dataset.version,
                storage_options=self._options,
            )
            self.place.system.delete_file(part.path)

    def close(self) -> None:
        self._lead.close()

    def _found(self) -> Any:
        """The dataset, if there is one. Raises DestinationError for one of another model, and for
        anything else."""
        if not self.place.exists():
            return None
        if self.place.is_file():
            raise DestinationError(f"{self.place} is a file; name another dataset")
        names = [path.removeprefix(f"{self.place.path}/") for path in self.place.files()]
        if not any(name.startswith("_versions/") and name.endswith(".manifest") for name in names):
            if not all(name.startswith("_") for name in names):  # of a run that was killed early
                raise DestinationError(f"{self.place} is no Lance dataset; name another one")
            return None
        with self._explained():
            found = lance.dataset(str(self.place), storage_options=self._options)
        name = self.place.path.rpartition("/")[2]
        check_model(self.place, self.model, found.schema.metadata or {}, name)
        return found

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns Lance's errors into DestinationErrors, without its lines of source code."""
        try:
            yield
        except (OSError, ValueError) as error:
            said = str(error).partition("\n")[0].partition(", /")[0]
            raise DestinationError(f"{self.place}: Lance cannot use it ({said})") from None


def _storage_options(place: Place) -> dict[str, str]:
    """pyarrow's options in the place's URI, for Lance's own client of object stores. Raises
    DestinationError for those that are not translated here."""
    given = dict(place.options)
    endpoint, region = given.pop("endpoint_override", None), given.pop("region", None)
    scheme = given.pop("scheme", "https")
    if given:
        raise DestinationError(
            f"{place}: a URI of a Lance dataset may have the options region, endpoint_override and "
            f"scheme, but not {', '.join(sorted(given))}; credentials come from the environment"
        )
    options = {"allow_http": "true"} if scheme == "http" else {}
    if endpoint is not None:
        options["aws_endpoint"] = f"{scheme}://{endpoint.rpartition('://')[2]}"
    if region is not None:
        options["aws_region"] = region
    return options
