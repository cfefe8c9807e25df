"""State and steps of processors/requests.py."""
