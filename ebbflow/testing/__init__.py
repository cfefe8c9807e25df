"""Fakes and scripted servers for tests; part of the package so that parts of other packages can use them."""
