"""Use cases: what Jobtrail does with events and readings, told to the world through ports."""
