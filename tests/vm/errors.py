"""What can go wrong on the host's side of the kernel matrix."""


class Unavailable(Exception):
    """A kernel cannot be had or booted; the text says why."""
