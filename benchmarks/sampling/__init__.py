"""What reading the counters of jobs costs, next to a C program and to the usual text reads of exporters."""
