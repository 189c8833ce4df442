"""One CAVE service per file, with caveclient's method names. A service only names the endpoint and the decoder."""
