"""What a request names instead of holding it: nothing else opens URLs and files for clients."""
