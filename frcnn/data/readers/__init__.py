"""Readers of what data sets come as: each makes a `Source` of files or says what is wrong with them."""
