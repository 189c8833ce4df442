"""Optional bridges to the packages that CAVE users know; each imports its package only when it is used."""
