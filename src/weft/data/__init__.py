"""Files in, row blocks out: never imports networks."""
