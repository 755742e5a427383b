"""Values and rules. No I/O, no clock, no logging: everything here can be decided from its arguments."""
