"""Bytes with positions in, messages out: one pure file a protocol, no I/O, no clock."""
