-- Make a node known by one more token. $1 node, $2 digest, $3 expires, $4 by whom
SELECT jobtrail_add_node_token($1, $2, $3, $4)
