//! Examples, labels, spans and metrics on the host.
