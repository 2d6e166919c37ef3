"""CRIU itself: finding it, its command lines, its images, its failures explained, and cleaning up after it."""
