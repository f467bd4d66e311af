"""Scripts' work: data sets from elsewhere -> 16-bit PCM files that training reads."""
