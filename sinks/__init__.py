"""One file a signal or destination: add, flush, close."""
