"""The console command `frcnn`: TAO's words, and ours, for the functions behind scripts/."""
