"""The node's clock: watched for steps, compared with the store's."""
