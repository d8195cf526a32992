"""Batch work on many machines: pictures to Parquet files, with Ray Data."""
