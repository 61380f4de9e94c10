"""The page and its server: one types, and sees what a model holds in its memory."""
