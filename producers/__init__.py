"""One file a feature: attach, drain, batch, publish."""
