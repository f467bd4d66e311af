"""The `report` command: what a run learnt and sounds like, as text and as a page."""
