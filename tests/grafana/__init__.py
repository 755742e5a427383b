"""The committed dashboards: each of their questions is answered by a real Prometheus and a real PostgreSQL."""
