"""What the records say, for people and programs: summary (plain data), tables, figures, the page."""
