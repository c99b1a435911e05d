"""What zones say to one another: frozen messages, HTTP/1.1 under mutual TLS 1.3."""
