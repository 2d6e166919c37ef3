"""From memory to the disk and back: images are captured in memory, packed behind the training's back, and streamed
to a restore straight from the packed form."""
