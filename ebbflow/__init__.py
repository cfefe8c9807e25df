"""Zero-code observability as a stream: kernel events in, OTLP out, Kafka in between."""

__version__ = "0.1.0"
