"""Async, high-throughput client for CAVE connectomics datasets."""
