"""Numbers about models and audio: likelihoods, lossless coders, levels and stereo image, distances, totals."""
