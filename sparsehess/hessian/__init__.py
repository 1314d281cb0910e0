"""What long stages have done so far, saved and taken up again by any number of ranks."""
