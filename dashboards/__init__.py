"""Grafana's dashboards of Stentor: values in Python, JSON in ``grafana/``, pictures in the documents."""
