"""Generated from proto/ebbflow/v1; see proto/README.md."""
