"""The dashboards: what they are made of, what Grafana's linter asks for, and every query against a real Prometheus."""
