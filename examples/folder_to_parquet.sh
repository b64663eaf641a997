#!/bin/sh
# Embeds a folder of photos into a Parquet file, and counts the rows with DuckDB.
#
#     sh examples/folder_to_parquet.sh photos photos.parquet
set -eu
raylens embed "$1" -o "$2"
python -c "import duckdb; print(duckdb.sql(\"SELECT count(*) FROM '$2' WHERE error IS NULL\"))"
