"""`jobtrail doctor`: looks at a node or a server, changes nothing, and says how to mend what it finds."""
