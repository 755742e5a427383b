"""Jobtrail's Grafana dashboards as code: `python -m grafana.src` writes them to grafana/dashboards."""
