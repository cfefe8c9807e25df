"""OTLP encoding and semantic-convention names."""
