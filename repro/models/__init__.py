"""Networks as published, built from their tables, and the layers torch does not have."""
