"""The embedded OTLP backend: what sinks export to when no endpoint is configured.

    OTLP/HTTP ── server ── body ── decode ──> rows ── writer ── database ──> DuckDB file
    ebbflow traces, trace, top ── client ──> server (/api) or the file itself ── queries

One process writes the file; everyone else asks that process, or opens the file read-only when no store runs.
"""
