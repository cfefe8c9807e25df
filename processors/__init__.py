"""One file a processor: its decision is in its docstring, its logic is pure."""
