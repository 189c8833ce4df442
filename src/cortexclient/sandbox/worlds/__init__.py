"""Where worlds come from: synthetic ones of any size, the one recorded from real servers, and one of real neurons."""
