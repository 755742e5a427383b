"""People's word on jobs."""
