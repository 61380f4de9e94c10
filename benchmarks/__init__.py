"""Speed claims: one command each, with a peer in the same run."""
