//! HTTP server and web lab.
