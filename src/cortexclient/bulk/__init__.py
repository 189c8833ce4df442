"""Bulk jobs: one question about millions of ids, answered part by part into a folder, resumable, by many processes."""
