"""What trainings of the tests hold, one thing each: ``MODES`` of each module."""
