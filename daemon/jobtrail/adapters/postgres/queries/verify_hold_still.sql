-- Nobody drops a partition while the transaction lasts; before its first query, so that its snapshot is of what is there.
LOCK TABLE audit_payload IN ACCESS SHARE MODE
