"""The formats of CAVE: pure functions between bytes and arrays. Nothing here does I/O."""
